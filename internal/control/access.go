//go:build linux

package control

import (
	"fmt"
	"net/http"
	"os/user"
	"strconv"
)

// access is what a peer may do.
type access int

const (
	stranger access = iota // nothing
	member                 // of the group: what concerns only himself
	root                   // all
)

func (s *Server) accessOf(p *Peer) access {
	switch {
	case p == nil:
		return stranger
	case p.UID == 0:
		return root
	case s.grouped && p.In(s.gid):
		return member
	}
	return stranger
}

// handler answers all requests of the API.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, needs access, h func(http.ResponseWriter, *http.Request, *Peer) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			p, _ := r.Context().Value(peerKey{}).(*Peer)
			if s.accessOf(p) < needs {
				answerError(w, forbidden())
			} else if err := h(w, r, p); err != nil {
				answerError(w, asError(err))
			}
		})
	}
	handle("GET /v1/version", member, s.version)
	handle("GET /v1/flows", member, s.flows)
	handle("GET /v1/flows/{id}", member, s.flow)
	handle("POST /v1/run", member, s.run)
	handle("GET /v1/status", root, s.status)
	handle("GET /v1/providers", root, s.providers)
	handle("GET /v1/policy", root, s.policy)
	handle("PUT /v1/policy", root, s.applyPolicy)
	handle("POST /v1/policy/explain", root, s.explain)
	handle("POST /v1/sql", root, s.sql)
	metrics := s.metrics()
	handle("GET /metrics", root, func(w http.ResponseWriter, r *http.Request, _ *Peer) error {
		metrics.ServeHTTP(w, r)
		return nil
	})
	handle("/", root, func(_ http.ResponseWriter, r *http.Request, _ *Peer) error {
		return &Error{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path), Hint: "docs/api.md lists what there is"}
	})
	return mux
}

func forbidden() *Error {
	return &Error{Status: http.StatusForbidden, Message: "you may not do that", Hint: "run it as root"}
}

// mayUse returns an error unless the peer may send his programs through these
// providers. To one who is not root a provider that does not exist and one
// that is not open to him are the same.
func mayUse(p *Peer, via []string, providers []Provider) error {
	known := make(map[string]*Provider, len(providers))
	var names []string
	for i := range providers {
		known[providers[i].Name] = &providers[i]
		names = append(names, providers[i].Name)
	}
	for _, name := range via {
		provider := known[name]
		switch {
		case provider == nil && p.UID == 0:
			return &Error{Status: http.StatusUnprocessableEntity, Message: fmt.Sprintf("no provider %q", name), Hint: fmt.Sprintf("the policy has: %q", names)}
		case p.UID != 0 && (provider == nil || !isOpen(provider, p)):
			return &Error{
				Status:  http.StatusForbidden,
				Message: fmt.Sprintf("provider %q is not open to you", name),
				Hint:    fmt.Sprintf("root can name one of your groups as open-to of provider %s in the policy", name),
			}
		}
	}
	return nil
}

func isOpen(provider *Provider, p *Peer) bool {
	for _, group := range provider.OpenTo {
		if g, err := user.LookupGroup(group); err == nil {
			group = g.Gid
		}
		if gid, err := strconv.ParseUint(group, 10, 32); err == nil && p.In(uint32(gid)) {
			return true
		}
	}
	return false
}
