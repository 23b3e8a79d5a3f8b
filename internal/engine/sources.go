//go:build linux

package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Source is what the kernel does about what leaves for a prefix. The zero
// value says that it is not known.
type Source struct {
	Addr netip.Addr    // which it gives as source; the unspecified one stands for the destination's own
	Err  syscall.Errno // of connect(), if there is no way
}

// MaxSources bounds the prefixes of one network namespace.
const MaxSources = 4096

// SetSources declares what is known of the ways out of a network namespace,
// all of it: what is left out is not known. The data path makes use of it for
// as long as it is valid, so that it does not outlive who follows the routes.
func (e *Engine) SetSources(netns uint64, sources map[netip.Prefix]Source, valid time.Duration) error {
	if len(sources) > MaxSources {
		return fmt.Errorf("set the sources of %d prefixes: at most %d", len(sources), MaxSources)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	want := make(map[kernelWbSourceKey]kernelWbSource)
	for prefix, source := range sources {
		want[encodePrefix(netns, prefix)] = encodeSource(source)
	}
	if err := e.putSources(netns, want, valid); err != nil {
		return fmt.Errorf("set the sources of %d prefixes: %w", len(sources), err)
	}
	return nil
}

// putSources puts what is new before it deletes what is old: each prefix is
// known as it was or as it is.
func (e *Engine) putSources(netns uint64, want map[kernelWbSourceKey]kernelWbSource, valid time.Duration) error {
	now := bootNow()
	if len(want) == 0 {
		if err := e.objects.SourcesUntil.Delete(netns); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	stale, err := e.staleSources(netns, want, now)
	if err != nil {
		return err
	}
	for key, source := range want {
		if err := e.objects.Sources.Put(&key, &source); err != nil {
			return err
		}
	}
	for _, key := range stale {
		if err := e.objects.Sources.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	if len(want) == 0 {
		return nil
	}
	return e.objects.SourcesUntil.Put(netns, uint64(now+valid))
}

// staleSources takes what is there already out of want, and lists what is no
// longer true: also of other namespaces, whose followers are gone.
func (e *Engine) staleSources(netns uint64, want map[kernelWbSourceKey]kernelWbSource, now time.Duration) (stale []kernelWbSourceKey, err error) {
	alive, err := e.followedNamespaces(now)
	if err != nil {
		return nil, err
	}
	var (
		key    kernelWbSourceKey
		source kernelWbSource
		it     = e.objects.Sources.Iterate()
	)
	for it.Next(&key, &source) {
		wanted, ok := want[key]
		switch {
		case ok && wanted == source:
			delete(want, key)
		case !ok && (key.NetnsCookie == netns || !alive[key.NetnsCookie]):
			stale = append(stale, key)
		}
	}
	return stale, it.Err()
}

// followedNamespaces forgets those whose time is over.
func (e *Engine) followedNamespaces(now time.Duration) (map[uint64]bool, error) {
	var (
		netns, until uint64
		alive        = make(map[uint64]bool)
		over         []uint64
		it           = e.objects.SourcesUntil.Iterate()
	)
	for it.Next(&netns, &until) {
		if alive[netns] = until > uint64(now); !alive[netns] {
			over = append(over, netns)
		}
	}
	for _, netns := range over {
		e.objects.SourcesUntil.Delete(netns)
	}
	return alive, it.Err()
}

// bootNow is the kernel programs' time.
func bootNow() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // not reached: every kernel has this clock
	}
	return time.Duration(ts.Nano())
}

// sourceFixedBits are those before the address: WB_SOURCE_FIXED_BITS.
const sourceFixedBits = 96

func encodePrefix(netns uint64, p netip.Prefix) kernelWbSourceKey {
	mapped := 128 - p.Addr().BitLen() // bits that lead to IPv4
	return kernelWbSourceKey{
		PrefixBits:  uint32(sourceFixedBits + mapped + p.Bits()),
		NetnsCookie: netns,
		Addr:        encodeAddr(p.Masked().Addr()),
	}
}

func encodeSource(s Source) kernelWbSource {
	switch {
	case s.Err != 0:
		return kernelWbSource{Kind: uint32(kernelWbSourceKindWB_SOURCE_UNREACHABLE), Error: uint32(s.Err)}
	case !s.Addr.IsValid():
		return kernelWbSource{Kind: uint32(kernelWbSourceKindWB_SOURCE_UNKNOWN)}
	case s.Addr.IsUnspecified():
		return kernelWbSource{Kind: uint32(kernelWbSourceKindWB_SOURCE_DESTINATION)}
	}
	return kernelWbSource{Kind: uint32(kernelWbSourceKindWB_SOURCE_ADDRESS), Addr: encodeAddr(s.Addr)}
}
