//go:build linux

package control

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

const (
	defaultLimit = 1000
	maxLimit     = 100_000
)

func (s *Server) flows(w http.ResponseWriter, r *http.Request, p *Peer) error {
	values := r.URL.Query()
	follow, err := readBool(values, "follow")
	if err != nil {
		return err
	}
	q, err := readQuery(values, time.Now())
	if err != nil {
		return err
	}
	if p.UID != 0 {
		q.UID = &p.UID
	}
	if follow {
		if values.Has("since") || values.Has("until") || values.Has("limit") {
			return badRequest("leave since, until and limit out", "follow: it begins now and does not end")
		}
		return s.follow(w, r, q)
	}
	flows, err := s.Backend.Flows(r.Context(), q)
	if err != nil {
		return err
	}
	return answer(w, orEmpty(flows))
}

func (s *Server) flow(w http.ResponseWriter, r *http.Request, p *Peer) error {
	var id flow.ID
	if err := id.UnmarshalText([]byte(r.PathValue("id"))); err != nil {
		return badRequest("waybill flows lists those that are kept", "%v", err)
	}
	f, err := s.Backend.Flow(r.Context(), id)
	if err != nil {
		return err
	}
	if p.UID != 0 && !isOf(f, p.UID) {
		// As if it did not exist: that it does is not his business either.
		return fmt.Errorf("read flow %s: %w", id, flowstore.ErrNotFound)
	}
	return answer(w, f)
}

// isOf reports whether the user, who is not root, opened the flow. Whose flow
// it is is not known if its beginning was not seen; it then has the number 0.
func isOf(f *flow.Flow, uid uint32) bool { return f.Process.UID == uid }

// follow streams flows as they change. An error after its beginning is the
// last line.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, q flowstore.Query) error {
	// Only when the body is read is the end of the connection noticed.
	if _, err := read(w, r); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	var lines *stream
	ready := func() {
		var err error
		if lines, err = openStream(w); err != nil {
			cancel(err)
		}
	}
	err := s.Backend.Follow(ctx, ready, func(f flow.Flow) error {
		if !matches(&f, q) {
			return nil
		}
		err := lines.send(f)
		if err != nil {
			cancel(err) // there is nobody to tell about it
		}
		return err
	})
	if err == nil || lines == nil {
		return err
	}
	if ctx.Err() == nil {
		lines.send(asError(err))
	}
	return nil
}

// matches says of a flow that is not in the store what a query does of one
// that is.
func matches(f *flow.Flow, q flowstore.Query) bool {
	switch {
	case q.UID != nil && !isOf(f, *q.UID):
		return false
	case q.Program != "" && q.Program != f.Program() && q.Program != f.Details.Executable:
		return false
	case q.Provider != "" && !slices.ContainsFunc(f.Hops, func(h flow.Hop) bool { return h.Provider == q.Provider }):
		return false
	}
	return true
}

// readQuery reads the parameters of a URL. A misspelt one would widen the
// answer, so it is an error.
func readQuery(values url.Values, now time.Time) (q flowstore.Query, err error) {
	known := []string{"since", "until", "limit", "program", "provider", "follow"}
	for name, given := range values {
		if !slices.Contains(known, name) || len(given) > 1 {
			return q, badRequest(fmt.Sprintf("there are %q, once each", known), "read parameters: %s=%q", name, given)
		}
	}
	q.Program, q.Provider, q.Limit = values.Get("program"), values.Get("provider"), defaultLimit
	if q.Since, err = readTime(values, "since", now); err != nil {
		return q, err
	}
	if q.Until, err = readTime(values, "until", now); err != nil {
		return q, err
	}
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxLimit {
			return q, badRequest(fmt.Sprintf("write a number from 1 to %d", maxLimit), "read limit %q", text)
		}
	}
	return q, nil
}

func readTime(values url.Values, name string, now time.Time) (time.Time, error) {
	text := values.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := ParseTime(text, now)
	if err != nil {
		return t, badRequest("write how long ago, as 90m, or a time, as 2026-08-02T18:41:58Z", "read %s %q", name, text)
	}
	return t, nil
}

// ParseTime reads a time, or how long before now it is: "90m".
func ParseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	return time.Parse(time.RFC3339, text)
}

func readBool(values url.Values, name string) (bool, error) {
	text := values.Get(name)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, badRequest("write 1 or leave it out", "read %s %q", name, text)
	}
	return b, nil
}
