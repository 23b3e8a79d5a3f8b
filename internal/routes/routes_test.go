//go:build linux

package routes_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/routes"
	"github.com/waybill-net/waybill/internal/testenv"
)

// A network with one device, two gateways and a few special cases. Nobody
// answers in it: what is asked is which way things would go.
const network = `
link add near type veth peer name far
link set near up
link set far up
address add 198.51.100.1/24 dev near
address add 198.51.100.9/24 dev near
address add 2001:db8:5::1/64 dev near nodad
address add fd00:5::1/64 dev near nodad
route add 203.0.113.0/24 dev near src 198.51.100.9
route add unreachable 203.0.113.128/25
route add prohibit 203.0.113.64/26
route add blackhole 203.0.113.32/27
route add 100.64.0.0/10 dev near src 192.0.2.2 table 77
rule add to 100.64.0.0/16 lookup 77
route add local 198.18.0.0/15 dev lo
route add 2001:db8:6::/48 via 2001:db8:5::fe
route add 2001:db8:7::/48 dev near src 2001:db8::2
route add fd00::/8 via 2001:db8:5::fe
route add unreachable 2001:db8:8::/48
`

// ways is how and where to, of network: what the program is to see.
var ways = []struct{ how, host, want string }{
	{"udp", "127.0.0.1", "127.0.0.1"},
	{"udp", "192.0.2.1", "192.0.2.1"},
	{"udp", "198.51.100.7", "198.51.100.1"},
	{"udp", "198.51.100.9", "198.51.100.1"},
	{"udp", "198.18.4.5", "198.18.4.5"},
	{"udp", "203.0.113.1", "198.51.100.9"},
	{"udp", "203.0.113.129", "EHOSTUNREACH"},
	{"udp", "203.0.113.65", "EACCES"},
	{"udp", "203.0.113.33", "EINVAL"},
	{"udp", "100.64.1.1", "192.0.2.2"},
	{"udp", "100.65.1.1", "ENETUNREACH"},
	{"udp", "8.8.8.8", "ENETUNREACH"},
	{"udp", "::ffff:203.0.113.1", "::ffff:198.51.100.9"},
	{"udp", "::ffff:8.8.8.8", "ENETUNREACH"},
	{"udp", "::1", "::1"},
	{"udp", "2001:db8:5::7", "2001:db8:5::1"},
	{"udp", "2001:db8:6::7", "2001:db8:5::1"},
	{"udp", "2001:db8:7::7", "2001:db8::2"},
	{"udp", "2001:db8:8::7", "EHOSTUNREACH"},
	{"udp", "fd00:7::7", "fd00:5::1"},
	{"udp", "2600::1", "ENETUNREACH"},
	{"port", "203.0.113.1", "198.51.100.9"},
	{"port", "2001:db8:6::7", "2001:db8:5::1"},
	{"bound", "203.0.113.1", "192.0.2.2"},
	{"bound", "2001:db8:6::7", "2001:db8::2"},
	{"again", "203.0.113.1", "198.51.100.9"},
	{"again", "2001:db8:6::7", "2001:db8:5::1"},
	{"disconnected", "203.0.113.1", "0.0.0.0"},
	{"disconnected", "2001:db8:6::7", "::"},
	{"tcp", "127.0.0.1", "127.0.0.1"},
	{"tcp", "203.0.113.1", "198.51.100.9"},
	{"tcp", "::ffff:203.0.113.1", "::ffff:198.51.100.9"},
	{"tcp", "2001:db8:6::7", "2001:db8:5::1"},
	{"tcp", "fd00:7::7", "fd00:5::1"},
}

// scene is a host with a proxy that takes everything, outside of which there
// is none.
type scene struct {
	t        *testing.T
	env      *testenv.Env
	beside   *testenv.Env // cgroups that no hook covers, in the same network
	engine   *engine.Engine
	unfollow func()
}

func newScene(t *testing.T) *scene {
	s := &scene{t: t, env: testenv.New(t), beside: testenv.New(t)}
	s.beside.ShareNetNS(s.env)
	s.ip(network)
	var err error
	if s.engine, err = engine.Open(engine.Options{Scope: s.env.Scope}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.engine.Close() })
	s.startProxy()
	s.follow()
	return s
}

func (s *scene) startProxy() {
	at, at6 := netip.MustParseAddrPort("127.0.0.1:7001"), netip.MustParseAddrPort("[::1]:7001")
	s.env.Start("proxy", "python3", "-c", `
import signal, socket
held = []
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        held.append(socket.socket(family, kind))
        held[-1].bind((host, 7001))
    held[-1].listen()
# Loopback addresses are redirected where somebody listens.
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        held.append(socket.socket(family, kind))
        held[-1].bind((host, 53))
    held[-1].listen()
print("ready", flush=True)
signal.pause()
`)
	everywhere := []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"),
		netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128"),
	}
	if err := s.engine.Apply(policy.Policy{
		Providers: []policy.Provider{{Name: "proxy", Listen: at, Listen6: at6, UDP: at, UDP6: at6, Cgroup: s.env.Cgroup("proxy")}},
		Filters: []policy.Filter{{
			Provider: "proxy", Protocols: []policy.Protocol{policy.TCP, policy.UDP}, Destination: everywhere,
		}},
	}); err != nil {
		s.t.Fatal(err)
	}
}

// follow begins to follow the routes; s.unfollow ends it.
func (s *scene) follow() {
	s.t.Helper()
	var f *routes.Follower
	s.env.Inside(func() (err error) {
		f, err = routes.New(s.engine)
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx, func(err error) { s.t.Error(err) })
	}()
	s.unfollow = func() {
		cancel()
		<-done
		f.Close()
	}
	s.t.Cleanup(s.unfollow)
}

func (s *scene) ip(commands string) {
	s.t.Helper()
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	s.env.Inside(func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
		return nil
	})
}

func (s *scene) redirected() uint64 {
	s.t.Helper()
	c, err := s.engine.Counters()
	if err != nil {
		s.t.Fatal(err)
	}
	return c["redirected"]
}

// TestNames: a program behind a proxy sees itself as it does without, and as
// it should.
func TestNames(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var args, want []string
	reached := 0
	for _, w := range ways {
		args, want = append(args, w.how+" "+w.host), append(want, w.want)
		if !strings.HasPrefix(w.want, "E") {
			reached++
		}
	}
	args = append([]string{"testdata/names.py"}, args...)
	without, with := s.beside.Run("app", "python3", args...), s.env.Run("app", "python3", args...)
	outside, inside := strings.Split(strings.TrimSpace(without), "\n"), strings.Split(strings.TrimSpace(with), "\n")
	if len(outside) != len(ways) || len(inside) != len(ways) {
		t.Fatalf("outside:\n%s\ninside:\n%s", without, with)
	}
	for i, line := range inside {
		if line != outside[i] {
			t.Errorf("with a proxy %s, without %s", line, outside[i])
		}
		if got := strings.Fields(line)[2]; got != want[i] {
			t.Errorf("%s, want %s", line, want[i])
		}
	}
	if n := s.redirected(); n < uint64(reached) {
		t.Errorf("%d connections were redirected, want %d", n, reached)
	}
}

// TestManyDestinations: a host with many addresses chooses among them by the
// destination, in ways that no route tells.
func TestManyDestinations(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.ip(`
address add 2600:5::1/64 dev near nodad
address add 2600:5:0:8000::1/65 dev near nodad
address add 2a00:1::1/64 dev near nodad
address add 2002:c000:201::1/64 dev near nodad
address add fd80:5::1/64 dev near nodad
route add default via 198.51.100.254
route add default via 2001:db8:5::fe
route del fd00::/8
`)
	random := rand.New(rand.NewPCG(1, 2))
	args := []string{"testdata/names.py"}
	for _, prefix := range []string{
		"0.0.0.0/0", "203.0.113.0/24", "198.51.100.0/24", "100.0.0.0/8",
		"2000::/3", "2600::/8", "2600:5::/32", "2a00::/8", "fc00::/7", "fd80::/10", "2001:db8::/32", "2001::/31", "2002::/16",
	} {
		p := netip.MustParsePrefix(prefix)
		for range 40 {
			if host := within(random, p); !host.IsLoopback() && !host.IsMulticast() {
				args = append(args, "udp "+host.String())
			}
		}
	}
	if outside := s.beside.Run("app", "python3", args...); !s.agrees(outside, args...) {
		t.Fatal("the changes have not been followed")
	}
}

// agrees waits until a program in the scope sees what it did outside.
func (s *scene) agrees(outside string, args ...string) bool {
	s.t.Helper()
	var inside string
	for range 20 {
		if inside = s.env.Run("app", "python3", args...); inside == outside {
			return true
		}
	}
	want := strings.Split(outside, "\n")
	for i, line := range strings.Split(inside, "\n") {
		if line != want[i] {
			s.t.Errorf("with a proxy %s, without %s", line, want[i])
		}
	}
	return false
}

// within returns an address of a prefix.
func within(random *rand.Rand, p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := range raw {
		kept := byte(0xff << (8 - max(0, min(8, p.Bits()-8*i)))) // bits of the prefix
		raw[i] = raw[i]&kept | byte(random.Uint32())&^kept
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}

// name is what a program sees in the scope, or beside it.
func name(env *testenv.Env, how, host string) string {
	return strings.Fields(env.Run("app", "python3", "testdata/names.py", how+" "+host))[2]
}

// TestChanges: what changes in the network is seen soon after.
func TestChanges(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, tt := range []struct{ change, host, want string }{
		{"route add default via 198.51.100.254", "8.8.8.8", "198.51.100.1"},
		{"route add default via 2001:db8:5::fe", "2600::1", "2001:db8:5::1"},
		{"route add 8.0.0.0/8 via 198.51.100.254 src 198.51.100.9", "8.8.8.8", "198.51.100.9"},
		{"rule add to 8.8.8.0/24 unreachable", "8.8.8.8", "ENETUNREACH"},
		{"rule del to 8.8.8.0/24 unreachable", "8.8.8.8", "198.51.100.9"},
		{"route del 8.0.0.0/8", "8.8.8.8", "198.51.100.1"},
		{"address add 2001:db8:9::1/64 dev near nodad\naddress del 2001:db8:5::1/64 dev near\nroute add 2600::/16 dev near", "2600::1", "2001:db8:9::1"},
		{"address del 198.51.100.1/24 dev near", "198.51.100.7", "ENETUNREACH"},
		{"link set near down", "203.0.113.1", "ENETUNREACH"},
	} {
		s.ip(tt.change)
		outside := name(s.beside, "udp", tt.host)
		inside := name(s.env, "udp", tt.host)
		for deadline := time.Now().Add(10 * time.Second); inside != outside && time.Now().Before(deadline); {
			inside = name(s.env, "udp", tt.host)
		}
		if inside != outside || inside != tt.want {
			t.Errorf("after %s: %s with a proxy, %s without; want %s", tt.change, inside, outside, tt.want)
		}
	}
}

// TestWithoutFollower: where nobody follows the routes, nothing is made up.
func TestWithoutFollower(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.unfollow()
	before := s.redirected()
	for host, want := range map[string]string{"203.0.113.1": "127.0.0.1", "8.8.8.8": "127.0.0.1", "2001:db8:6::7": "::1", "2600::1": "::1"} {
		if got := name(s.env, "udp", host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	if n := s.redirected() - before; n != 4 {
		t.Errorf("%d were redirected, want 4", n)
	}
	s.follow()
	if got := name(s.env, "udp", "203.0.113.1"); got != "198.51.100.9" {
		t.Errorf("with another follower: %s", got)
	}
}

// TestWaysOfTheirOwn: of a socket whose way depends on more than its
// destination nothing is made up either.
func TestWaysOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, how := range []string{"marked", "on_device"} {
		for _, host := range []string{"203.0.113.1", "8.8.8.8"} {
			if got := name(s.env, how, host); got != "127.0.0.1" {
				t.Errorf("%s, to %s: %s, want 127.0.0.1", how, host, got)
			}
		}
	}
}

// TestOrderOfAddresses: getaddrinfo() sorts what a name leads to by the source
// that each would have.
func TestOrderOfAddresses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const lookup = `
mount -t tmpfs none testdata && cp /dev/stdin testdata/hosts && mount --bind testdata/hosts /etc/hosts &&
exec python3 -c '
import socket
for name in ("both", "only4", "labels"):
    print(name, *(a[4][0] for a in socket.getaddrinfo(name, 53, type=socket.SOCK_STREAM)))
'
`
	const hosts = `
2001:db8:6::7 both
203.0.113.1 both
2600::1 only4
203.0.113.1 only4
fd00:7::7 labels
2001:db8:6::7 labels
`
	resolve := func(env *testenv.Env) string {
		cmd := env.Command("app", "unshare", "--mount", "sh", "-c", lookup)
		cmd.Stdin = strings.NewReader(hosts)
		var out []byte
		env.Inside(func() (err error) {
			out, err = cmd.Output()
			return err
		})
		return string(out)
	}
	outside, inside := resolve(s.beside), resolve(s.env)
	if inside != outside || !strings.Contains(inside, "both 2001:db8:6::7 203.0.113.1\n") || !strings.Contains(inside, "only4 203.0.113.1 2600::1\n") {
		t.Errorf("with a proxy:\n%swithout:\n%s", inside, outside)
	}
	s.unfollow()
	if misled := resolve(s.env); misled == outside {
		t.Errorf("without a follower the order is the same: this test shows nothing\n%s", misled)
	}
}
