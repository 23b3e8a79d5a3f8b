//go:build linux

package interop

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// Every cell of the table has a destination of its own, by which its
// connections are told from others whatever the proxies do to them.
var (
	destinations4 = netip.MustParsePrefix("198.18.0.0/15")
	destinations6 = netip.MustParsePrefix("2001:db8:1::/64")
)

// stage is what all chains share: the proxies run all the time, and each
// chain is but another policy.
type stage struct {
	env     *testenv.Env
	engine  *engine.Engine
	origin  *origin
	journal *journal
	kinds   []kind
	proxies map[string]*proxy
	cgroups map[uint64]string // whose they are, by id
	trusted string            // file with the authorities that the client trusts
	said    output
	cells   []*cell // that have run

	last4, last6 netip.Addr // destinations used
}

func newStage(t *testing.T, kinds []kind) *stage {
	t.Helper()
	s := &stage{env: testenv.New(t), kinds: kinds, proxies: make(map[string]*proxy), last4: destinations4.Addr(), last6: destinations6.Addr()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.said.String())
		}
	})
	s.env.AddPrefix(destinations4)
	s.env.AddPrefix(destinations6)
	authority, cert := newCertificate(t)
	s.origin = startOrigin(t, s.env, cert)
	s.openEngine(t)

	trust := filepath.Join(t.TempDir(), "authority.pem")
	write(t, trust, authority)
	s.startProxies(t, trust)
	s.trust(t, authority)
	s.cgroups = s.findCgroups(t)
	return s
}

func (s *stage) openEngine(t *testing.T) {
	t.Helper()
	var err error
	if s.engine, err = engine.Open(engine.Options{Scope: s.env.Scope}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	s.journal = startJournal(t, s.engine)
}

// trust makes the file for the client: the origin's authority, and those that
// proxies have made.
func (s *stage) trust(t *testing.T, authority []byte) {
	t.Helper()
	all := authority
	for _, p := range s.proxies {
		if p.prepared.CA == "" {
			continue
		}
		pem, err := os.ReadFile(p.prepared.CA)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pem...)
	}
	s.trusted = filepath.Join(t.TempDir(), "trusted.pem")
	write(t, s.trusted, all)
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// apply puts a policy into force.
func (s *stage) apply(t *testing.T, p policy.Policy) {
	t.Helper()
	if err := s.engine.Apply(p); err != nil {
		t.Fatal(err)
	}
}

// destination returns an address that nothing has been sent to yet.
func (s *stage) destination(family int) netip.Addr {
	if family == 6 {
		s.last6 = s.last6.Next()
		return s.last6
	}
	s.last4 = s.last4.Next()
	return s.last4
}
