//go:build linux

package control_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/control/controltest"
	"github.com/waybill-net/waybill/internal/dns"
)

// TestTell: what is told is learnt when Tell returns, or there is an error.
func TestTell(t *testing.T) {
	var (
		learnt  []dns.Resolved
		trouble error
	)
	socket := controltest.ServeNames(t, &control.NamesServer{Learn: func(found dns.Resolved) error {
		learnt = append(learnt, found)
		return trouble
	}})
	client := control.NewNamesClient(socket)
	for _, name := range []string{"www.example.org", "second.example.org"} {
		found := dns.Resolved{Name: name, Addresses: map[netip.Addr]time.Duration{
			netip.MustParseAddr("192.0.2.1"): 300 * time.Second, netip.MustParseAddr("2001:db8::1"): 0,
		}}
		if err := client.Tell(t.Context(), found); err != nil {
			t.Fatal(err)
		}
		got := learnt[len(learnt)-1]
		if got.Name != name || len(got.Addresses) != 2 || got.Addresses[netip.MustParseAddr("192.0.2.1")] != 300*time.Second {
			t.Errorf("learnt %+v", got)
		}
	}
	trouble = errors.New("set names of 192.0.2.1: no memory")
	err := client.Tell(t.Context(), dns.Resolved{Name: "a.example", Addresses: map[netip.Addr]time.Duration{netip.MustParseAddr("192.0.2.1"): 0}})
	var refusal *control.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusInternalServerError || !strings.Contains(err.Error(), "learn a.example: "+trouble.Error()) {
		t.Errorf("what is told does not count: %v", err)
	}
	err = control.NewNamesClient("/nonexistent/names.sock").Tell(t.Context(), dns.Resolved{Name: "a.example"})
	if err == nil || !strings.Contains(err.Error(), "no daemon listens there") {
		t.Errorf("without a server: %v", err)
	}
}

// countingListener counts connections.
type countingListener struct {
	net.Listener
	n atomic.Int32
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// TestTellAtOnce: however many answers come at once, all are told, on few
// connections: of those that a user may have, nothing is lost.
func TestTellAtOnce(t *testing.T) {
	const answers, most = 200, 8
	var (
		learning sync.WaitGroup
		learnt   atomic.Int32
	)
	learning.Add(most)
	s := &control.NamesServer{Learn: func(dns.Resolved) error {
		if learnt.Add(1) <= most {
			learning.Done()
			learning.Wait()
		}
		return nil
	}}
	socket := filepath.Join(t.TempDir(), "names.sock")
	l, err := s.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	counting := &countingListener{Listener: l}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, counting) }()
	client := control.NewNamesClient(socket)
	found := dns.Resolved{Name: "a.example", Addresses: map[netip.Addr]time.Duration{netip.MustParseAddr("192.0.2.1"): time.Minute}}
	var telling sync.WaitGroup
	for range answers {
		telling.Go(func() {
			if err := client.Tell(t.Context(), found); err != nil {
				t.Error(err)
			}
		})
	}
	telling.Wait()
	if n := counting.n.Load(); learnt.Load() != answers || n > most {
		t.Errorf("%d of %d learnt, on %d connections", learnt.Load(), answers, n)
	}
	cancel()
	if err := controltest.Within(t, served, "end of the server"); err != nil {
		t.Error(err)
	}
}

// TestWhoMayTell: root may, and others if they belong to a provider.
func TestWhoMayTell(t *testing.T) {
	var (
		may    atomic.Bool
		learnt atomic.Int32
	)
	socket := controltest.ServeNames(t, &control.NamesServer{
		MayTell: func(p *control.Peer) bool { return may.Load() && p.UID == 65534 },
		Learn: func(dns.Resolved) error {
			learnt.Add(1)
			return nil
		},
	})
	tell := func(uid string) string {
		t.Helper()
		out, err := exec.Command("setpriv", "--reuid="+uid, "--regid="+uid, "--clear-groups", "curl", "-sS", "--unix-socket", socket,
			"-d", `{"name": "a.example", "addresses": [{"address": "192.0.2.1", "seconds": 60}]}`, "http://waybill/v1/names").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	for _, step := range []struct {
		may       bool
		uid, want string
		learnt    int32
	}{
		{false, "0", "{}", 1},
		{false, "65534", `{"error":"you may not tell names","hint":"a process of a provider may, and root"}`, 1},
		{true, "65534", "{}", 2},
	} {
		may.Store(step.may)
		if got := tell(step.uid); got != step.want || learnt.Load() != step.learnt {
			t.Errorf("user %s: got %s, learnt %d", step.uid, got, learnt.Load())
		}
	}
}

// TestBadNames: nothing is learnt of what makes no sense.
func TestBadNames(t *testing.T) {
	socket := controltest.ServeNames(t, &control.NamesServer{Learn: func(found dns.Resolved) error {
		t.Errorf("learnt %+v", found)
		return nil
	}})
	many := `{"name": "a.example", "addresses": [` + strings.Repeat(`{"address": "192.0.2.1"}, `, 256) + `{"address": "192.0.2.1"}]}`
	for body, want := range map[string]string{
		`{`:                     "read body",
		`{"nam": "a.example"}`:  "unknown field",
		`{"name": "a.example"}`: "0 addresses; want 1 to 256",
		`{"name": "*.a.example", "addresses": [{"address": "192.0.2.1"}]}`: "is no name of a host",
		`{"name": "a..example", "addresses": [{"address": "192.0.2.1"}]}`:  "is no name of a host",
		`{"name": "a.example", "addresses": [{"address": "192.0.2"}]}`:     "read body",
		`{"name": "a.example", "addresses": [{"address": "0.0.0.0"}]}`:     `address \"0.0.0.0\"`,
		`{"name": "a.example", "addresses": [{}]}`:                         "address",
		many:                       "257 addresses",
		strings.Repeat(" ", 20000): "body of more than",
	} {
		cmd := exec.Command("curl", "-sS", "--unix-socket", socket, "--data-binary", "@-", "http://waybill/v1/names")
		cmd.Stdin = strings.NewReader(body)
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), `"error"`) {
			t.Errorf("%.60s: got %s, %v; want %s", body, out, err, want)
		}
	}
}
