//go:build linux

package control

import (
	"cmp"
	"errors"
	"net/http"

	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/flowstore"
)

const apiVersion = 1

func (s *Server) version(w http.ResponseWriter, _ *http.Request, _ *Peer) error {
	return answer(w, Version{Version: s.Version, API: apiVersion})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request, _ *Peer) error {
	status, err := s.Backend.Status(r.Context())
	if err != nil {
		return err
	}
	return answer(w, status)
}

func (s *Server) providers(w http.ResponseWriter, r *http.Request, _ *Peer) error {
	status, err := s.Backend.Status(r.Context())
	if err != nil {
		return err
	}
	return answer(w, orEmpty(status.Providers))
}

func (s *Server) policy(w http.ResponseWriter, r *http.Request, _ *Peer) error {
	policy, err := s.Backend.Policy(r.Context())
	if err != nil {
		return err
	}
	return answer(w, policy)
}

func (s *Server) applyPolicy(w http.ResponseWriter, r *http.Request, _ *Peer) error {
	yaml, err := read(w, r)
	if err != nil {
		return err
	}
	applied, err := s.Backend.ApplyPolicy(r.Context(), cmp.Or(r.URL.Query().Get("name"), "policy.yaml"), yaml)
	if err != nil {
		return err
	}
	applied.Warnings = orEmpty(applied.Warnings)
	return answer(w, applied)
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request, _ *Peer) error {
	var request explain.Question
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	if !request.Dst.IsValid() {
		return badRequest(`give it as "dst": "192.0.2.1:443"`, "explain: no destination given")
	}
	explanation, err := s.Backend.Explain(r.Context(), request)
	if err != nil {
		return err
	}
	return answer(w, explanation)
}

// sqlRequest is the body of POST /v1/sql.
type sqlRequest struct {
	Query string `json:"query"`
}

func (s *Server) sql(w http.ResponseWriter, r *http.Request, _ *Peer) error {
	var request sqlRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	columns, rows, err := s.Backend.SQL(r.Context(), request.Query)
	switch {
	case err == nil:
		return answer(w, Table{Columns: orEmpty(columns), Rows: orEmpty(rows)})
	case r.Context().Err() != nil, flowstore.IsCorrupt(err):
		return err
	case errors.Is(err, flowstore.ErrReadOnly):
		return badRequest("ask with SELECT", "%v", err)
	}
	return badRequest("docs/flows.md has the tables and their columns", "%v", err)
}

// run lasts as long as the connection.
// maxRunBody is ample for the names of all providers that there can be.
const maxRunBody = 16 << 10

func (s *Server) run(w http.ResponseWriter, r *http.Request, p *Peer) error {
	var request RunRequest
	r.Body = http.MaxBytesReader(w, r.Body, maxRunBody)
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	if len(request.Via) == 0 {
		return badRequest(`name one as "via": ["NAME"]`, "run: no provider given")
	}
	status, err := s.Backend.Status(r.Context())
	if err != nil {
		return err
	}
	if err := mayUse(p, request.Via, status.Providers); err != nil {
		return err
	}
	result, end, err := s.Backend.Run(r.Context(), p, request)
	if err != nil {
		return err
	}
	defer end.Close()
	lines, err := openStream(w)
	if err == nil {
		err = lines.send(result)
	}
	if err == nil {
		<-r.Context().Done()
	}
	return nil // whoever would be told is gone
}

// orEmpty makes an empty list of none: in JSON that is not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
