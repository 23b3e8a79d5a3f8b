//go:build linux

package interop

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/preset"
	"github.com/waybill-net/waybill/internal/supervise"
)

// kind is a proxy in one of the ways in which it can be run.
type kind struct {
	name    string // of its provider
	preset  string
	options map[string]string
	opens   bool // TLS: the client sees its certificate
	hangs   bool // when a client ends its direction first: the end of the other never comes
}

// kinds of proxies that Debian has, and our own, in the order of the table.
func kinds() []kind {
	return []kind{
		{name: "inspect", preset: "inspect"},
		{name: "mitmproxy", preset: "mitmproxy", opens: true, hangs: true},
		{name: "mitmproxy-pass", preset: "mitmproxy", options: map[string]string{"pass": `origin\.example`}, hangs: true},
		{name: "haproxy", preset: "haproxy"},
		{name: "haproxy-http", preset: "haproxy", options: map[string]string{"mode": "http"}},
		{name: "nginx", preset: "nginx"},
		{name: "squid", preset: "squid"},
		{name: "redsocks", preset: "redsocks"},
	}
}

// proxy is one that runs.
type proxy struct {
	kind
	listen   netip.AddrPort
	emulate  policy.Emulation
	prepared *preset.Prepared
	cgroup   string
	remote   bool // it dials a server elsewhere, not the origin
}

// takes reports whether its provider wants connections of this payload.
func (p *proxy) takes(load payload, host netip.Addr) bool {
	if host.Is6() && !p.prepared.Listen6.IsValid() {
		return false
	}
	port := uint16(load.port())
	return len(p.prepared.Ports) == 0 || slices.ContainsFunc(p.prepared.Ports, func(r policy.PortRange) bool {
		return r.First <= port && port <= r.Last
	})
}

const (
	firstPort    = 7001
	startTimeout = 2 * time.Minute // for all of them, on a busy machine
	stopTimeout  = 5 * time.Second
)

// startProxies starts all kinds at once and stops them when the test ends. Those
// that open TLS trust the authorities in a file.
func (s *stage) startProxies(t *testing.T, trust string) {
	t.Helper()
	dir := openDir(t)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var starting sync.WaitGroup
	for i, k := range s.kinds {
		if k.opens {
			k.options = map[string]string{"trust": trust}
		}
		p := s.prepareProxy(t, k, filepath.Join(dir, k.name), uint16(firstPort+i))
		s.proxies[k.name] = p
		starting.Go(func() {
			if err := s.startProxy(ctx, t, p); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// openDir makes a directory through which everybody can pass: the proxies run
// as users of their own.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (s *stage) prepareProxy(t *testing.T, k kind, dir string, port uint16) *proxy {
	t.Helper()
	known, err := preset.Lookup(k.preset)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{kind: k, emulate: known.Emulate, cgroup: s.env.Cgroup(k.name), listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	site := preset.Site{
		Dir: dir, Options: k.options, Self: os.Args[0],
		Listen: p.listen, Listen6: netip.AddrPortFrom(netip.IPv6Loopback(), port),
	}
	s.env.Inside(func() (err error) {
		p.prepared, err = known.Prepare(site)
		return err
	})
	return p
}

func (s *stage) startProxy(ctx context.Context, t *testing.T, p *proxy) error {
	for i, process := range p.prepared.Processes {
		if err := s.startProcess(ctx, t, p, process, s.env.Cgroup(filepath.Join(p.name, strconv.Itoa(i)))); err != nil {
			return err
		}
	}
	return nil
}

// startProcess starts one process of a proxy, waits until it listens, and
// stops it when the test ends.
func (s *stage) startProcess(ctx context.Context, t *testing.T, p *proxy, c preset.Process, cgroup string) error {
	c.Cgroup, c.NetNS, c.Output = cgroup, s.env.NetNS(), &s.said
	c.OnExit = func(exit string, _ time.Duration) { t.Errorf("proxy %s ended: %s", p.name, exit) }
	process, err := supervise.Start(c.Command)
	if err != nil {
		return err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		process.Stop(ctx)
	})
	return process.WaitListening(ctx, c.Listen...)
}

// policy puts proxies in front of everything, the first of them first.
func (s *stage) policy(names []string) policy.Policy {
	var p policy.Policy
	for i, name := range names {
		proxy := s.proxies[name]
		p.Providers = append(p.Providers, policy.Provider{
			Name: name, Weight: int32(100 * (len(names) - i)),
			Listen: proxy.listen, Listen6: proxy.prepared.Listen6, Cgroup: proxy.cgroup, Emulate: proxy.emulate,
		})
		p.Filters = append(p.Filters, policy.Filter{Provider: name, Ports: proxy.prepared.Ports})
	}
	return p
}

// output keeps the last of what the proxies printed.
type output struct {
	mu    sync.Mutex
	lines []string
}

const keptOutput = 60

func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, string(line))
	o.lines = o.lines[max(0, len(o.lines)-keptOutput):]
	return len(line), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return fmt.Sprintf("the proxies printed last:\n%s", strings.Join(o.lines, ""))
}
