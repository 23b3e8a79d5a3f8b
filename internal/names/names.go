// Package names keeps what is known of names: it is told by proxies which
// addresses they lead to, tells the engine, for filters that ask, and answers
// those who show a person an address.
package names

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/waybill-net/waybill/internal/dns"
)

// Options of [Open].
type Options struct {
	// Path is of a file in which what is known outlives this process; empty:
	// none. It is written once a second if there is something new.
	Path string

	// Set is told the names of an address whenever they have changed; nil:
	// nobody is.
	Set func(netip.Addr, []string) error

	// Failed hears of errors that are nobody's answer; nil: nobody does.
	Failed func(error)
}

// Keeper keeps them.
type Keeper struct {
	opts   Options
	memory dns.Memory
	dirty  atomic.Bool
}

// Open reads what is known. A file that can not be read is an error that the
// Keeper can do without: it begins with nothing.
func Open(opts Options) (*Keeper, error) {
	k := &Keeper{opts: opts}
	k.memory.Changed = k.changed
	if opts.Path == "" {
		return k, nil
	}
	text, err := os.ReadFile(opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	var saved []entry
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err != nil {
		return k, fmt.Errorf("read names: %w", err)
	}
	for _, e := range saved {
		if left := time.Until(e.Until); left > 0 {
			k.failed(k.memory.Add(dns.Resolved{Name: e.Name, Addresses: map[netip.Addr]time.Duration{e.Address: left}}))
		}
	}
	return k, nil
}

// entry is one name of one address in the file, the oldest first.
type entry struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Until   time.Time  `json:"until"`
}

// Learn returns when Set has been told. An error is one of Set; the Keeper has
// learnt it all the same, and tells Set again when it is learnt again.
func (k *Keeper) Learn(found dns.Resolved) error {
	k.dirty.Store(true) // also if nothing but its end is another one
	return k.memory.Add(found)
}

// Of returns the names that have led to an address of late, the newest first.
func (k *Keeper) Of(addr netip.Addr) []string {
	var names []string
	for _, n := range k.memory.Names(addr) {
		names = append(names, n.Name)
	}
	return names
}

// Newest is the first of [Keeper.Of]; empty: none is known.
func (k *Keeper) Newest(addr netip.Addr) string {
	if names := k.Of(addr); len(names) > 0 {
		return names[0]
	}
	return ""
}

// Run forgets what has come to its end, and writes the file, until ctx ends;
// and then once more.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.save()
			return
		case <-tick.C:
			k.failed(k.memory.Sweep())
			k.save()
		}
	}
}

func (k *Keeper) save() {
	if k.opts.Path == "" || !k.dirty.Swap(false) {
		return
	}
	saved := []entry{}
	now := time.Now()
	for _, found := range k.memory.All() {
		for addr, left := range found.Addresses {
			saved = append(saved, entry{found.Name, addr, now.Add(left)})
		}
	}
	text, err := json.Marshal(saved)
	next := k.opts.Path + ".new"
	if err == nil {
		err = os.WriteFile(next, text, 0o600)
	}
	if err == nil {
		err = os.Rename(next, k.opts.Path)
	}
	if err != nil {
		k.failed(fmt.Errorf("write names: %w", err))
	}
}

func (k *Keeper) changed(addr netip.Addr, names []string) error {
	k.dirty.Store(true)
	if k.opts.Set == nil {
		return nil
	}
	return k.opts.Set(addr, names)
}

func (k *Keeper) failed(err error) {
	if err != nil && k.opts.Failed != nil {
		k.opts.Failed(err)
	}
}
