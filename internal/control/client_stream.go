//go:build linux

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

// Follower reads flows as they change.
type Follower struct {
	body    io.Closer
	decoder *json.Decoder
}

// Follow begins to follow the flows of a query's Program and Provider. From
// its return on no change is missed. It ends with ctx.
func (c Client) Follow(ctx context.Context, q flowstore.Query) (*Follower, error) {
	values := parameters(flowstore.Query{Program: q.Program, Provider: q.Provider})
	values.Set("follow", "1")
	body, err := c.open(ctx, http.MethodGet, "/v1/flows", values, nil)
	if err != nil {
		return nil, err
	}
	return &Follower{body, json.NewDecoder(body)}, nil
}

// Next waits for a flow to change. The error is io.EOF when the daemon ends.
func (f *Follower) Next() (*flow.Flow, error) {
	var line struct {
		flow.Flow
		Error
	}
	if err := f.decoder.Decode(&line); err != nil {
		return nil, endOfStream(err)
	}
	if line.Message != "" {
		return nil, &line.Error
	}
	return &line.Flow, nil
}

// Close ends a Next that waits.
func (f *Follower) Close() error { return f.body.Close() }

// Run is the caller's process in a cgroup of its own.
type Run struct {
	RunResult
	body    io.Closer
	decoder *json.Decoder
}

// Run moves the calling process into a cgroup whose connections go through
// the providers of r, until Close or the end of ctx. Sockets that it has made
// before stay what they are; processes that it starts are in the cgroup too.
func (c Client) Run(ctx context.Context, r RunRequest) (*Run, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	body, err := c.open(ctx, http.MethodPost, "/v1/run", nil, text)
	if err != nil {
		return nil, err
	}
	run := &Run{body: body, decoder: json.NewDecoder(body)}
	if err := run.decoder.Decode(&run.RunResult); err != nil {
		return nil, errors.Join(fmt.Errorf("read answer to run: %w", err), body.Close())
	}
	return run, nil
}

// Wait waits until the daemon ends the run, which it does only with itself, or
// until Close. It is nil for an end in order.
func (r *Run) Wait() error {
	if err := r.decoder.Decode(new(struct{})); !errors.Is(err, io.EOF) {
		return endOfStream(err)
	}
	return nil
}

// Close ends the run.
func (r *Run) Close() error { return r.body.Close() }

// endOfStream: a daemon that is killed does not finish its answers.
func endOfStream(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}
