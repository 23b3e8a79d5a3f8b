//go:build linux

package testenv

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/netns"
)

// Addresses that reach this namespace and are not loopback ones: filters that
// name no loopback prefix match them. They are those of the documentation.
var (
	Outside4 = netip.MustParseAddr("192.0.2.1")
	Outside6 = netip.MustParseAddr("2001:db8::1")

	// Second addresses, for who talks to more than one.
	Beside4 = netip.MustParseAddr("192.0.2.2")
	Beside6 = netip.MustParseAddr("2001:db8::2")
)

func newNetNS(t testing.TB) *netns.NetNS {
	t.Helper()
	ns, err := netns.New(Outside4, Outside6, Beside4, Beside6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// Inside runs f in the network namespace of the test.
func (e *Env) Inside(f func() error) {
	e.t.Helper()
	if err := e.netns.Do(f); err != nil {
		e.t.Fatal(err)
	}
}

// NetNS is the network namespace of the test.
func (e *Env) NetNS() *netns.NetNS { return e.netns }

// AddPrefix makes every address of a prefix one of this namespace's own.
func (e *Env) AddPrefix(prefix netip.Prefix) {
	e.t.Helper()
	e.Inside(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index,
			Dst:       &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())},
			Type:      unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: unix.RT_TABLE_LOCAL,
		})
	})
}

// Join makes e's programs run in the cgroups of other, in e's own network
// namespace.
func (e *Env) Join(other *Env) { e.Scope = other.Scope }

// ShareNetNS makes e's programs run in the network namespace of other, in e's
// own cgroups.
func (e *Env) ShareNetNS(other *Env) { e.netns = other.netns }

// Listen listens on a TCP address inside the network namespace, until the
// test ends. The socket is outside the scope, as that of a remote server is.
func (e *Env) Listen(address string) net.Listener {
	e.t.Helper()
	var l net.Listener
	e.Inside(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	e.t.Cleanup(func() { l.Close() })
	return l
}

// ListenPacket opens a socket of UDP in the network namespace.
func (e *Env) ListenPacket(address string) net.PacketConn {
	e.t.Helper()
	var c net.PacketConn
	e.Inside(func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	})
	e.t.Cleanup(func() { c.Close() })
	return c
}

// AnswerDatagrams answers on a UDP address inside the network namespace, until
// the test ends: with the host and what was sent to it.
func (e *Env) AnswerDatagrams(address string) {
	e.t.Helper()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		e.t.Fatal(err)
	}
	c := e.ListenPacket(address)
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(append([]byte(host+" "), buf[:n]...), from)
		}
	}()
}

// Sysctl sets a sysctl of the network namespace, such as
// "net/ipv4/tcp_fastopen".
func (e *Env) Sysctl(name, value string) {
	e.t.Helper()
	e.Inside(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
}

// DropPacketsTo drops, silently, the packets that come to a TCP port over
// IPv4, until it is told to deliver them again.
func (e *Env) DropPacketsTo(port uint16) (deliver func()) {
	e.t.Helper()
	e.nft("add table ip drops",
		"add chain ip drops in { type filter hook input priority 0; }",
		fmt.Sprintf("add rule ip drops in tcp dport %d drop", port))
	return func() { e.nft("delete table ip drops") }
}

func (e *Env) nft(commands ...string) {
	e.t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	e.Inside(func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
		return nil
	})
}

// AddDevice adds a network device that leads nowhere, and a route to
// 192.0.2.64/26 by it.
func (e *Env) AddDevice(name string) {
	e.t.Helper()
	e.Inside(func() error {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-end"}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("192.0.2.65/26")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, addr)
	})
}
