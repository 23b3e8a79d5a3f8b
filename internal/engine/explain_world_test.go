//go:build linux

package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/identity"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// explainWorld is what the connections of TestExplain are drawn from: a
// random policy, and the programs, users, cgroups and addresses of which it
// names some.
type explainWorld struct {
	t        *testing.T
	env      *testenv.Env
	rng      *rand.Rand
	programs []string
	policy   policy.Policy
	table    *policy.Table
	filters  map[string]policy.Filter // of the policy, by name
	clients  []policy.Subject         // yet to come
}

var (
	explainUsers   = []string{"root", "nobody", "1001", "1002"}
	explainCgroups = []string{"app", "app/deep", "app/deep/est", "other", "b", "e"} // two are those of proxies
	explainPorts   = []uint16{8001, 8002, 8003, 8004, 8005, 8006}
	explainAddrs   = []netip.Addr{
		testenv.Outside4, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"),
		testenv.Outside6, netip.MustParseAddr("2001:db8::2"),
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.9"), netip.IPv6Loopback(),
	}
)

func newExplainWorld(t *testing.T, env *testenv.Env, change func(*explainWorld)) *explainWorld {
	t.Helper()
	w := &explainWorld{t: t, env: env, rng: rand.New(rand.NewPCG(7, 7)), programs: copyPrograms(t, 4)}
	for _, name := range explainCgroups {
		env.Cgroup(name)
	}
	env.Inside(addAddresses)
	w.policy, w.filters = w.randomPolicy(), make(map[string]policy.Filter)
	change(w)
	for _, f := range w.policy.Filters {
		w.filters[f.Name] = f
	}
	ids, err := identity.Resolve(w.policy)
	if err != nil {
		t.Fatal(err)
	}
	if w.table, err = policy.Compile(w.policy, ids); err != nil {
		t.Fatal(err)
	}
	for _, program := range w.programs {
		for _, user := range explainUsers {
			for _, cgroup := range explainCgroups {
				w.clients = append(w.clients, w.subject(program, user, cgroup))
			}
		}
	}
	w.rng.Shuffle(len(w.clients), func(i, j int) { w.clients[i], w.clients[j] = w.clients[j], w.clients[i] })
	return w
}

// copyPrograms makes several programs of the test binary.
func copyPrograms(t *testing.T, n int) []string {
	t.Helper()
	dir := t.TempDir()
	// Other users run them.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	var programs []string
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("program%d", i))
		if err := os.WriteFile(path, binary, 0o755); err != nil {
			t.Fatal(err)
		}
		programs = append(programs, path)
	}
	return programs
}

// addAddresses adds those that a namespace of the tests has not.
func addAddresses() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, address := range []string{"192.0.2.3/32"} {
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(lo, a); err != nil {
			return err
		}
	}
	return nil
}

// subject describes a process with everything known.
func (w *explainWorld) subject(program, user, cgroup string) policy.Subject {
	w.t.Helper()
	file, err := identity.Program(program)
	if err != nil {
		w.t.Fatal(err)
	}
	uid, err := identity.User(user)
	if err != nil {
		w.t.Fatal(err)
	}
	return policy.Subject{Program: program, File: file, User: user, UID: uid, Cgroup: w.env.Cgroup(cgroup)}
}

// command prepares a process that is this subject, in a role.
func (w *explainWorld) command(s policy.Subject, role string, args ...string) *exec.Cmd {
	w.t.Helper()
	cgroup, err := filepath.Rel(w.env.Scope, s.Cgroup)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := w.env.Command(cgroup, s.Program, args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.UID, Gid: s.UID}
	return cmd
}

// startProxies starts those that are not down and returns who they are.
func (w *explainWorld) startProxies() map[string]policy.Subject {
	w.t.Helper()
	proxies := make(map[string]policy.Subject)
	for i, p := range w.policy.Providers {
		if slices.Contains(explainDown, p.Name) {
			continue
		}
		s := w.subject(w.programs[i%len(w.programs)], explainUsers[i%len(explainUsers)], p.Name)
		var addresses []string
		for _, a := range []netip.AddrPort{p.Listen, p.Listen6} {
			if a.IsValid() {
				addresses = append(addresses, a.String())
			}
		}
		role := "proxy"
		if slices.Contains(explainUnaware, p.Name) {
			role = "unaware"
		}
		w.env.StartCommand(w.command(s, role, addresses...))
		proxies[p.Name] = s
	}
	return proxies
}

// startOrigins answers on every address and port.
func (w *explainWorld) startOrigins() {
	o := &echoOrigin{seen: make(map[uint64]int)}
	for _, port := range explainPorts {
		l := w.env.Listen(":" + strconv.Itoa(int(port)))
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go o.serve(c)
			}
		}()
	}
}

// next returns another client and where it connects to, no address and port twice.
func (w *explainWorld) next() (policy.Subject, []netip.AddrPort) {
	client := w.clients[0]
	w.clients = w.clients[1:]
	var all []netip.AddrPort
	for _, a := range explainAddrs {
		for _, port := range explainPorts {
			all = append(all, netip.AddrPortFrom(a, port))
		}
	}
	all = append(all, w.policy.Providers[0].Listen, w.policy.Providers[1].Listen6)
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return client, all[:explainAttempts]
}

// try makes a client's connections and returns its process id and what became
// of each: empty if it was answered.
func (w *explainWorld) try(client policy.Subject, dsts []netip.AddrPort) (pid int, results []string) {
	w.t.Helper()
	pid = w.play("attempts", client, dsts, &results)
	return pid, results
}

// play has a client play a role with all destinations, and reads its results.
func (w *explainWorld) play(role string, client policy.Subject, dsts []netip.AddrPort, results any) (pid int) {
	w.t.Helper()
	var args []string
	for _, dst := range dsts {
		args = append(args, dst.String())
	}
	var out bytes.Buffer
	cmd := w.command(client, role, args...)
	cmd.Stdout = &out
	w.env.Inside(cmd.Start)
	if err := cmd.Wait(); err != nil {
		w.t.Fatalf("%s: %v", cmd, err)
	}
	decode(w.t, out.String(), results)
	return cmd.Process.Pid
}

// playAttempts connects to one address after the other and prints why each
// was not answered.
func playAttempts(addresses []string) error {
	results := make([]string, len(addresses))
	for i, address := range addresses {
		if err := exchange(address, uint64(i)); err != nil {
			results[i] = err.Error()
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// playUnaware relays as proxies behind netfilter do: its connections inherit.
func playUnaware(addresses []string) error {
	failed := make(chan error)
	var config net.ListenConfig
	config.SetMultipathTCP(false) // such sockets do not pass our options on
	for _, address := range addresses {
		l, err := config.Listen(context.Background(), "tcp", address)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go relayUnaware(c.(*net.TCPConn))
			}
		}()
	}
	fmt.Println("ready")
	return <-failed
}

func relayUnaware(c *net.TCPConn) {
	defer c.Close()
	dst, err := waybill.OriginalDestination(c)
	if err != nil {
		return
	}
	upstream, err := net.Dial("tcp", dst.String())
	if err != nil {
		return
	}
	defer upstream.Close()
	go io.Copy(upstream, c)
	io.Copy(c, upstream)
}
