package flowstore

import (
	"context"
	"fmt"

	"github.com/waybill-net/waybill/internal/flow"
)

// batch is what one Add changes.
type batch struct {
	flows map[flow.ID]*flow.Flow
	hops  map[flow.ID][]int // numbers of those that changed; a flow without any did not change
}

// pruneEvery is after how many events Add prunes by itself, so that the file
// is bounded even between the calls of Prune.
const pruneEvery = 50_000

// Add adds events to the flows in the file: all of them, or, on an error,
// none. It is fast when it is given many at once.
func (s *Store) Add(ctx context.Context, events []flow.Event) error {
	ctx, err := unlimited(ctx)
	if err != nil || len(events) == 0 {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.load(ctx, events)
	if err == nil {
		s.apply(b, events)
		err = s.writer.write(ctx, b)
	}
	if err != nil {
		return fmt.Errorf("add %d events to flow store: %w", len(events), err)
	}
	for id, f := range b.flows {
		s.recent.Add(id, f)
	}
	if s.unpruned += len(events); s.unpruned >= pruneEvery {
		return s.prune(ctx)
	}
	return nil
}

// load finds the flows of the events: in memory, in the file, or nowhere.
func (s *Store) load(ctx context.Context, events []flow.Event) (*batch, error) {
	b := &batch{flows: make(map[flow.ID]*flow.Flow), hops: make(map[flow.ID][]int)}
	var missing []flow.ID
	for i := range events {
		id := events[i].Flow
		if _, found := b.flows[id]; found {
			continue
		}
		// Whatever becomes of it: until the flow is in the file it is not in
		// memory either.
		f, found := s.recent.Peek(id)
		s.recent.Remove(id)
		if !found {
			f = &flow.Flow{ID: id}
			missing = append(missing, id)
		}
		b.flows[id] = f
	}
	if len(missing) == 0 {
		return b, nil
	}
	stored, err := read(ctx, s.writer.conn, "SELECT "+flowNames+" FROM flows WHERE id IN (SELECT value FROM json_each(?))", idList(missing))
	for i := range stored {
		b.flows[stored[i].ID] = &stored[i]
	}
	return b, err
}

func (s *Store) apply(b *batch, events []flow.Event) {
	for _, e := range events {
		f := b.flows[e.Flow]
		before := f.Process
		if !f.Apply(e) {
			continue
		}
		b.hops[e.Flow] = append(b.hops[e.Flow], e.Hop)
		isNew := f.Process.PID != before.PID || f.Process.Start != before.Start
		if isNew && f.Process.PID != 0 && s.opts.Details != nil {
			f.Details = s.opts.Details(f.Process)
		}
	}
}
