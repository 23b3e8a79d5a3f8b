//go:build linux

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

const (
	// Events are written down together: a transaction costs more than they do.
	batchTime = 20 * time.Millisecond
	batchSize = 1000
)

// record writes down what the kernel reports, until ctx ends.
func (d *Daemon) record(ctx context.Context) error {
	events, err := d.engine.Events()
	if err != nil {
		return err
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	for {
		batch, err := d.readBatch(events)
		if len(batch) > 0 {
			d.write(batch)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read events: %w", err)
		}
	}
}

// readBatch waits for an event, and then a moment for others.
func (d *Daemon) readBatch(events *engine.Events) ([]flow.Event, error) {
	events.SetDeadline(time.Time{})
	event, err := d.readEvent(events)
	if err != nil {
		return nil, err
	}
	batch := []flow.Event{event}
	events.SetDeadline(time.Now().Add(batchTime))
	for len(batch) < batchSize {
		event, err := d.readEvent(events)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return batch, nil
		}
		if err != nil {
			return batch, err
		}
		batch = append(batch, event)
	}
	return batch, nil
}

// readEvent looks at once who began a flow, and remembers it: many a program
// has ended by the time its batch is written. The name of a destination is the
// newest at that time, too.
func (d *Daemon) readEvent(events *engine.Events) (flow.Event, error) {
	event, err := events.Read()
	if err == nil && event.Dst.IsValid() {
		event.Name = d.names.Newest(event.Dst.Addr())
	}
	if err == nil && event.Hop == 0 && event.Process.PID != 0 {
		d.origins.Details(event.Process)
	}
	return event, err
}

// write keeps a batch. What can not be kept is lost, and said so: the data
// path waits for nobody's disk.
func (d *Daemon) write(batch []flow.Event) {
	ctx := context.Background() // a batch that was read is written
	store := d.store.Load()
	if store == nil {
		return // it was said when it could not be opened
	}
	err := store.Add(ctx, batch)
	if flowstore.IsCorrupt(err) {
		err = errors.Join(err, d.renewStore())
	}
	if err != nil {
		d.log.Error("events were not written down", "events", len(batch), "error", err)
		return
	}
	if !d.feed.isFollowed() {
		return
	}
	seen := make(map[flow.ID]bool)
	for _, event := range batch {
		if seen[event.Flow] {
			continue
		}
		seen[event.Flow] = true
		if f, err := store.Flow(ctx, event.Flow); err == nil {
			d.feed.publish(*f)
		}
	}
}

// renewStore moves a file that has become unreadable aside, and begins anew.
// Who reads the old one meanwhile gets an error.
func (d *Daemon) renewStore() error {
	var errs []error
	if old := d.store.Swap(nil); old != nil {
		errs = append(errs, old.Close())
	}
	next, err := d.openStore()
	if err == nil {
		d.store.Store(next)
	}
	return errors.Join(append(errs, err)...)
}
