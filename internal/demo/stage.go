//go:build linux

package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/netns"
	"github.com/waybill-net/waybill/internal/policy"
)

// The stage is a network namespace and a cgroup of its own, so the addresses
// are free: nothing of the machine is touched, and nothing is left.
var (
	origin4 = netip.MustParseAddr("192.0.2.1")
	origin6 = netip.MustParseAddr("2001:db8::1")
)

const (
	originPort = 80
	greeting   = "hello from the origin"
	maxConns   = 100 // of each proxy at once: what ends the loop
)

type stage struct {
	ns     *netns.NetNS
	scope  *cgroup.Temporary
	engine *engine.Engine
	web    *http.Server
	hops   chan hop // from all proxies
	actors map[string]*actor
}

// actor is a proxy's process.
type actor struct {
	cmd    *exec.Cmd
	listen [2]netip.AddrPort
	done   chan struct{} // closed when the process is reaped and all it printed is read
}

// newStage sets everything up except the proxies.
func newStage() (s *stage, err error) {
	s = &stage{hops: make(chan hop, 4*maxConns), actors: make(map[string]*actor)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.scope, err = cgroup.CreateTemporary(fmt.Sprintf("waybill-demo-%d", os.Getpid())); err != nil {
		return s, err
	}
	if s.ns, err = netns.New(origin4, origin6); err != nil {
		return s, fmt.Errorf("make a network namespace: %w", err)
	}
	if s.engine, err = engine.Open(engine.Options{Scope: s.scope.Dir}); err != nil {
		return s, err
	}
	return s, s.startOrigin()
}

// close kills the actors and leaves no trace.
func (s *stage) close() error {
	var errs []error
	if s.web != nil {
		errs = append(errs, s.web.Close())
	}
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	if s.scope != nil {
		errs = append(errs, s.scope.Close())
	}
	for _, a := range s.actors {
		<-a.done
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	return errors.Join(errs...)
}

// startOrigin serves HTTP from this process, which is outside the scope as a
// remote server would be.
func (s *stage) startOrigin() error {
	var l net.Listener
	err := s.ns.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort("::", strconv.Itoa(originPort)))
		return err
	})
	if err != nil {
		return fmt.Errorf("start the origin: %w", err)
	}
	s.web = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, greeting)
	})}
	go s.web.Serve(l)
	return nil
}

// command prepares another role of this program, in the cgroup name.
func (s *stage) command(ctx context.Context, name string, args ...string) (*exec.Cmd, *os.File, error) {
	dir := filepath.Join(s.scope.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0] // the name that people see in a list of processes
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	cmd.Stderr = os.Stderr
	return cmd, f, nil
}

// startProxy starts a proxy as a process of its own and waits until it listens.
func (s *stage) startProxy(ctx context.Context, name string, port uint16) error {
	a := &actor{done: make(chan struct{}), listen: [2]netip.AddrPort{
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
		netip.AddrPortFrom(netip.IPv6Loopback(), port),
	}}
	cmd, dir, err := s.command(ctx, name, "demo-proxy", "--max-conns", strconv.Itoa(maxConns), name, a.listen[0].String(), a.listen[1].String())
	if err != nil {
		return err
	}
	defer dir.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.ns.Do(cmd.Start); err != nil {
		return fmt.Errorf("start proxy %s: %w", name, err)
	}
	a.cmd = cmd
	s.actors[name] = a
	lines := bufio.NewReader(stdout)
	ready, err := lines.ReadString('\n')
	go s.listenTo(a, lines)
	if ready != "ready\n" {
		return fmt.Errorf("start proxy %s: it printed %q instead of ready (%v)", name, ready, err)
	}
	return nil
}

func (s *stage) listenTo(a *actor, lines io.Reader) {
	defer close(a.done)
	for in := json.NewDecoder(lines); ; {
		var h hop
		if in.Decode(&h) != nil {
			break
		}
		s.hops <- h
	}
	a.cmd.Wait()
}

// runClient runs the program in front of the proxies.
func (s *stage) runClient(ctx context.Context, host netip.Addr, n int) ([]request, error) {
	cmd, dir, err := s.command(ctx, "app", "demo-client", "-n", strconv.Itoa(n), "http://"+hostOf(host)+"/")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var out strings.Builder
	cmd.Stdout = &out
	if err := s.ns.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start the client: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("run the client: %w", err)
	}
	requests := make([]request, n)
	in := json.NewDecoder(strings.NewReader(out.String()))
	for i := range requests {
		if err := in.Decode(&requests[i]); err != nil {
			return nil, fmt.Errorf("read what the client printed: %w", err)
		}
	}
	return requests, nil
}

func hostOf(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	return "[" + a.String() + "]"
}

// apply puts the two proxies in front of everything that goes to the web.
func (s *stage) apply(trackingOff bool) error {
	p := policy.Policy{TrackingOff: trackingOff}
	for i, name := range []string{"adblock", "dlp"} {
		a := s.actors[name]
		p.Providers = append(p.Providers, policy.Provider{
			Name:   name,
			Weight: int32(200 - 100*i),
			Listen: a.listen[0], Listen6: a.listen[1],
			Cgroup: filepath.Join(s.scope.Dir, name),
		})
		p.Filters = append(p.Filters, policy.Filter{Provider: name, Ports: []policy.PortRange{policy.Port(originPort)}})
	}
	return s.engine.Apply(p)
}

// collect takes hops until n have come, or none has for a while.
func (s *stage) collect(n int) []hop {
	const quiet = 300 * time.Millisecond
	var hops []hop
	for len(hops) < n {
		select {
		case h := <-s.hops:
			hops = append(hops, h)
		case <-time.After(quiet):
			return hops
		}
	}
	return hops
}
