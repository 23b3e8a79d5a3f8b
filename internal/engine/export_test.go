//go:build linux

package engine

import (
	"github.com/cilium/ebpf"
)

// Books is what the maps hold that are empty when no flow is left: their
// entries by name, and what is counted for users and queues.
func (e *Engine) Books() (map[string]int, error) {
	books := make(map[string]int)
	for name, m := range map[string]*ebpf.Map{
		"inflight": e.objects.Inflight, "candidates": e.objects.Candidates,
		"peers": e.objects.Peers, "destinations": e.objects.Destinations, "peer_contexts": e.objects.PeerContexts,
		"parted_sources": e.objects.PartedSources, "parted_outcomes": e.objects.PartedOutcomes,
	} {
		for key, err := m.NextKeyBytes(nil); key != nil || err != nil; key, err = m.NextKeyBytes(key) {
			if err != nil {
				return nil, err
			}
			books[name]++
		}
	}
	var (
		index uint32
		users uint64
		queue kernelWbQueue
	)
	for it := e.objects.PeerUsers.Iterate(); it.Next(&index, &users); {
		books["peer_users"] += int(int64(users))
	}
	for it := e.objects.Queues.Iterate(); it.Next(&index, &queue); {
		books["queues, open"] += int(queue.Open)
		books["queues, waiting"] += int(queue.Waiting)
	}
	if e.objects.Parted.Lookup(nil, new(kernelWbPeerKey)) == nil {
		books["parted"]++
	}
	return books, nil
}
