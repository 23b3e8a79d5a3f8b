//go:build linux

package daemon

import (
	"context"
	"fmt"
	"sync"

	"github.com/waybill-net/waybill/internal/flow"
)

// feed hands flows that change to those who follow them.
type feed struct {
	mu        sync.Mutex
	followers map[*follower]struct{}
}

// follower waits for flows at its own pace.
type follower struct {
	wake chan struct{} // has one element if there is something

	mu      sync.Mutex
	waiting map[flow.ID]flow.Flow
	order   []flow.ID // of waiting
	lost    bool
}

// maxWaiting bounds the memory of a follower that does not keep up.
const maxWaiting = 10_000

// Follow implements [control.Backend].
func (d *Daemon) Follow(ctx context.Context, ready func(), do func(flow.Flow) error) error {
	f := &follower{wake: make(chan struct{}, 1), waiting: make(map[flow.ID]flow.Flow)}
	d.feed.add(f)
	defer d.feed.remove(f)
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		}
		flows, lost := f.take()
		for _, flow := range flows {
			if err := do(flow); err != nil {
				return err
			}
		}
		if lost {
			return fmt.Errorf("follow flows: more than %d were waiting to be read", maxWaiting)
		}
	}
}

func (f *feed) add(one *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followers == nil {
		f.followers = make(map[*follower]struct{})
	}
	f.followers[one] = struct{}{}
}

func (f *feed) remove(one *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.followers, one)
}

func (f *feed) isFollowed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.followers) > 0
}

func (f *feed) publish(fl flow.Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for one := range f.followers {
		one.put(fl)
	}
}

func (f *follower) put(fl flow.Flow) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, waits := f.waiting[fl.ID]; !waits {
		if len(f.order) >= maxWaiting {
			f.lost = true
			return
		}
		f.order = append(f.order, fl.ID)
	}
	f.waiting[fl.ID] = fl
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *follower) take() (flows []flow.Flow, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.order {
		flows = append(flows, f.waiting[id])
	}
	f.order, lost = nil, f.lost
	clear(f.waiting)
	return flows, lost
}
