//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/policy"
)

// scene is everything that stays from the first round to the last: the
// cgroups, and the workers in them. The kernel programs come and go.
//
//	waybill-bench-PID/
//	├── outside/       direct, again, origin, forwarded; nft in a network namespace of its own
//	├── empty/         empty; programs that do nothing are attached here
//	├── scope-N/       waybill's programs, with a policy of N filters
//	│   ├── app/       app
//	│   ├── proxy/     the acceptor of redirected connections
//	│   └── other/     cgroups that filters name
//	└── scope/         waybill's programs are attached here
//	    ├── app/       app
//	    └── p1 … p8/   a proxy each; in p1 the acceptor of redirected connections, too
type scene struct {
	ctx   context.Context // of the workers: they are killed with it
	root  *cgroup.Temporary
	notes []string
	all   []*worker

	clientCPU, otherCPU int

	direct, again, empty, app *worker
	proxies                   []*worker // one per provider
	proxyPorts                []uint16  // where they listen
	originPort                uint16    // of an acceptor outside the scope
	forwardedPort             uint16    // of another, where the first proxy goes on without records
	proxyPort                 uint16    // of an acceptor in the first provider's cgroup

	echo, plainEcho, relayedEcho netip.AddrPort // of UDP
	sinkPort                     uint16         // of one outside the scope
	takerPort                    uint16         // of one that takes what is redirected
	plainPort, relayPort         uint16

	tmpfs    *os.File // of the programs that filters name
	programs []string
	sizes    []*size

	nft     *worker // nil without nft
	nftPort uint16
}

func newScene(ctx context.Context) (*scene, error) {
	client, other, err := cpus()
	if err != nil {
		return nil, err
	}
	if err := pin(other); err != nil {
		return nil, err
	}
	root, err := cgroup.CreateTemporary(fmt.Sprintf("waybill-bench-%d", os.Getpid()))
	if err != nil {
		return nil, err
	}
	s := &scene{ctx: ctx, root: root, clientCPU: client, otherCPU: other}
	if err := s.populate(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close ends the workers and removes the cgroups.
func (s *scene) close() error {
	for _, w := range s.all {
		w.stop()
	}
	if s.tmpfs != nil {
		s.tmpfs.Close()
	}
	return s.root.Close()
}

func (s *scene) scope() string { return filepath.Join(s.root.Dir, "scope") }

func (s *scene) emptyScope() string { return filepath.Join(s.root.Dir, "empty") }

func (s *scene) outside() string { return filepath.Join(s.root.Dir, "outside") }

func (s *scene) provider(i int) string { return filepath.Join(s.scope(), providerName(i)) }

func providerName(i int) string { return "p" + strconv.Itoa(i+1) }

func (s *scene) populate() (err error) {
	if s.direct, err = s.client("direct", s.outside()); err != nil {
		return err
	}
	if s.again, err = s.client("again", s.outside()); err != nil {
		return err
	}
	if s.empty, err = s.client("empty", s.emptyScope()); err != nil {
		return err
	}
	if s.app, err = s.client("app", filepath.Join(s.scope(), "app")); err != nil {
		return err
	}
	if s.originPort, err = s.acceptor("origin", s.outside()); err != nil {
		return err
	}
	if s.forwardedPort, err = s.acceptor("forwarded", s.outside()); err != nil {
		return err
	}
	if s.proxyPort, err = s.acceptor("proxy", s.provider(0)); err != nil {
		return err
	}
	for i := range policy.MaxHops {
		if err := s.addProxy(i); err != nil {
			return err
		}
	}
	if err := s.addSizes(); err != nil {
		return err
	}
	if err := s.connectToSelf(); err != nil {
		return err
	}
	if err := s.addRelays(); err != nil {
		return err
	}
	return s.addNft()
}

// start starts a worker in the cgroup at dir, which it makes if need be.
func (s *scene) start(name, dir, role string, flags uintptr, args ...string) (*worker, error) {
	cpu := s.otherCPU
	switch role {
	case roleWorker:
		cpu = s.clientCPU
	case rolePlainRelay, roleRelay:
		cpu = anyCPU
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start worker %s: %w", name, err)
	}
	w, err := startIn(dir, commandFor(s.ctx, role, cpu, args...), flags, name)
	if err != nil {
		return nil, err
	}
	s.all = append(s.all, w)
	return w, nil
}

// client starts a worker that has no privileges.
func (s *scene) client(name, dir string) (*worker, error) {
	w, err := s.start(name, dir, roleWorker, 0)
	if err != nil {
		return nil, err
	}
	_, err = w.do(order{Op: opDrop})
	return w, err
}

func (s *scene) acceptor(name, dir string) (uint16, error) {
	return s.server(name, dir, roleAcceptor)
}

// server starts a worker that serves on a port, and returns the port.
func (s *scene) server(name, dir, role string, args ...string) (uint16, error) {
	w, err := s.start(name, dir, role, 0, args...)
	if err != nil {
		return 0, err
	}
	r, err := w.read()
	if err != nil {
		return 0, fmt.Errorf("start %s %s: %w", role, name, err)
	}
	return r.Port, nil
}

func (s *scene) addProxy(i int) error {
	w, err := s.client(providerName(i), s.provider(i))
	if err != nil {
		return err
	}
	r, err := w.do(order{Op: opListen})
	if err != nil {
		return err
	}
	s.proxies = append(s.proxies, w)
	s.proxyPorts = append(s.proxyPorts, r.Port)
	return nil
}

// connectToSelf gives those that no proxy serves a connected socket to ask.
func (s *scene) connectToSelf() error {
	for _, w := range []*worker{s.direct, s.again, s.empty} {
		r, err := w.do(order{Op: opListen})
		if err != nil {
			return err
		}
		if err := pass(w, order{Op: opDial, To: []netip.AddrPort{local(r.Port)}}, w); err != nil {
			return err
		}
	}
	return nil
}

// pass lets one worker dial and another accept what arrives.
func pass(from *worker, o order, to *worker) error {
	if _, err := from.do(o); err != nil {
		return err
	}
	_, err := to.do(order{Op: opAccept})
	return err
}

func (s *scene) addSizes() (err error) {
	if s.tmpfs, s.programs, err = makePrograms(slices.Max(sizes)); err != nil {
		return err
	}
	for _, filters := range sizes {
		if err := s.addSize(filters); err != nil {
			return err
		}
	}
	return nil
}

// addNft adds the peer, if this machine has it.
func (s *scene) addNft() error {
	if _, err := exec.LookPath("nft"); err != nil {
		s.notes = append(s.notes, "nft is not installed: no peer to compare with")
		return nil
	}
	w, err := s.start("nft", s.outside(), roleWorker, unix.CLONE_NEWNET)
	if err != nil {
		return err
	}
	r, err := w.do(order{Op: opNft, CPU: s.otherCPU})
	if err != nil {
		s.notes = append(s.notes, fmt.Sprintf("no peer to compare with: %v", err))
		return nil
	}
	s.nft, s.nftPort = w, r.Port
	if _, err := w.do(order{Op: opDrop}); err != nil {
		return err
	}
	return pass(w, order{Op: opDial, To: []netip.AddrPort{held}}, w)
}
