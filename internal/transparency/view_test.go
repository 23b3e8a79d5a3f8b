//go:build linux

package transparency

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/waybill-net/waybill/internal/testenv"
)

// TestClientsView runs a program that looks at its connections.
func TestClientsView(t *testing.T) {
	s, env := newScene(t, "tcp.yaml"), testenv.New(t)
	connectFarHost(t, env)
	outside, inside := s.outside(env, "", "python3", "testdata/view.py"), s.inside(env, "", "python3", "testdata/view.py")
	if outside.err != nil || inside.err != nil {
		t.Fatalf("outside: %v, inside: %v", outside.err, inside.err)
	}
	without, with := parseView(outside.stdout), parseView(inside.stdout)
	t.Logf("%d things looked at; the first proxy saw %d connections, the second %d", len(without), inside.first, inside.second)
	const least = 30 // connections; some are to where nobody listens
	if len(without) != len(with) || inside.second < least {
		t.Fatalf("too little to compare: %d lines outside, %d inside, %d connections", len(without), len(with), inside.second)
	}
	var got []row
	for i, line := range without {
		if line.value != with[i].value {
			got = append(got, row{line.name, line.value, with[i].value})
			t.Logf("differs: %s", got[len(got)-1])
			continue
		}
		t.Logf("the same: %s: %s", line.name, line.value)
	}
	checkRows(t, got, readDocument(t).rows("A client's view", ""))
}

// sight is a line of what the program prints.
type sight struct{ name, value string }

func parseView(output string) []sight {
	var sights []sight
	for line := range strings.Lines(output) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		sights = append(sights, sight{name, value})
	}
	return sights
}

// connectFarHost gives env a network with another host, 198.51.100.2, which
// listens at port 80.
func connectFarHost(t *testing.T, env *testenv.Env) {
	far := testenv.New(t)
	var ns *os.File
	far.Inside(func() (err error) {
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	defer ns.Close()
	env.Inside(func() error {
		link := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far", PeerNamespace: netlink.NsFd(ns.Fd()),
		}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		return setUp("near", "198.51.100.1/24")
	})
	far.Inside(func() error { return setUp("far", "198.51.100.2/24") })
	l := far.Listen("198.51.100.2:80")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) {
				defer c.Close()
				io.Copy(c, c)
			}(c)
		}
	}()
}

func setUp(device, address string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}
