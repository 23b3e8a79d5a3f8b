//go:build linux

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/domain"
)

const (
	// DefaultNamesSocket is where a daemon is told names.
	DefaultNamesSocket = "/run/waybill/names.sock"

	// NamesVariable is the environment variable that tells a proxy where it is
	// to tell names.
	NamesVariable = "WAYBILL_NAMES"
)

// NamesServer is told by proxies which addresses names lead to, on a socket of
// its own: it is open to everybody, for proxies run as users without rights, and
// listens to processes of providers alone.
type NamesServer struct {
	MayTell func(*Peer) bool
	Learn   func(dns.Resolved) error // returns when filters know it
}

// Names is the body of POST /v1/names.
type Names struct {
	Name      string         `json:"name"`
	Addresses []NamedAddress `json:"addresses"`
}

// NamedAddress is one that a name leads to.
type NamedAddress struct {
	Address netip.Addr `json:"address"`
	Seconds uint32     `json:"seconds"` // for how long
}

// maxNames of addresses there are in one request: far more than in an answer
// of a resolver.
const maxNames = 256

// Listen makes the socket.
func (s *NamesServer) Listen(path string) (net.Listener, error) {
	return listen(path, func(path string) error { return os.Chmod(path, 0o666) })
}

// Serve answers those who connect to l until ctx ends. It closes l.
func (s *NamesServer) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/names", func(w http.ResponseWriter, r *http.Request) {
		if err := s.names(w, r); err != nil {
			answerError(w, asError(err))
		}
	})
	return servePeers(ctx, l, mux)
}

func (s *NamesServer) names(w http.ResponseWriter, r *http.Request) error {
	if p, ok := r.Context().Value(peerKey{}).(*Peer); !ok || p.UID != 0 && !s.MayTell(p) {
		return &Error{Status: http.StatusForbidden, Message: "you may not tell names", Hint: "a process of a provider may, and root"}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxRunBody)
	var told Names
	if err := readJSON(w, r, &told); err != nil {
		return err
	}
	found, err := told.resolved()
	if err != nil {
		return err
	}
	if err := s.Learn(found); err != nil {
		return fmt.Errorf("learn %s: %w", found.Name, err)
	}
	return answer(w, struct{}{})
}

func (n Names) resolved() (dns.Resolved, error) {
	found := dns.Resolved{Addresses: make(map[netip.Addr]time.Duration)}
	name, err := domain.ParseName(n.Name)
	switch {
	case err != nil:
		return found, badRequest("give one as DNS has it: www.example.com", "%q is no name of a host", n.Name)
	case len(n.Addresses) == 0 || len(n.Addresses) > maxNames:
		return found, badRequest("give what one answer of a resolver has", "%d addresses; want 1 to %d", len(n.Addresses), maxNames)
	}
	found.Name = name
	for _, a := range n.Addresses {
		if !a.Address.IsValid() || a.Address.IsUnspecified() {
			return found, badRequest("give those that the name leads to", "address %q", a.Address)
		}
		found.Addresses[a.Address.WithZone("").Unmap()] = time.Duration(a.Seconds) * time.Second
	}
	return found, nil
}

// NamesClient tells names. It keeps its connections.
type NamesClient struct {
	socket string
	http   http.Client
}

const (
	// tellTimeout: a program waits for its answer meanwhile.
	tellTimeout = 2 * time.Second

	// maxTelling is how many connections a client has. What others of its user
	// have counts with them for the server's maxOpen.
	maxTelling = 8
)

// NewNamesClient is for the server at a path.
func NewNamesClient(socket string) *NamesClient {
	var d net.Dialer
	return &NamesClient{socket: socket, http: http.Client{
		Timeout: tellTimeout,
		Transport: &http.Transport{
			DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
			MaxConnsPerHost: maxTelling, MaxIdleConnsPerHost: maxTelling,
			IdleConnTimeout: idleTimeout / 2, // before the server ends one while something is told on it
		},
	}}
}

// Tell returns when filters know what was found.
func (c *NamesClient) Tell(ctx context.Context, found dns.Resolved) error {
	told := Names{Name: found.Name}
	for addr, left := range found.Addresses {
		told.Addresses = append(told.Addresses, NamedAddress{addr, uint32(left / time.Second)})
	}
	text, err := json.Marshal(told)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://waybill/v1/names", bytes.NewReader(text))
	if err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("tell %s: %w", found.Name, noAnswer(c.socket, err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("tell %s: %w", found.Name, readError(answer))
	}
	_, err = io.Copy(io.Discard, answer.Body) // so that the connection can be used again
	return err
}

// IsIn reports whether the peer's process is in one of the cgroups, or below.
func (p *Peer) IsIn(dirs ...string) bool {
	at, err := cgroup.Of(p.PID)
	if err != nil || p.Check() != nil {
		return false
	}
	for _, dir := range dirs {
		if rel, err := filepath.Rel(dir, at); dir != "" && err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}
