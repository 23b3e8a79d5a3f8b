package datagram_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/waybill-net/waybill/internal/datagram"
	"github.com/waybill-net/waybill/internal/netns"
)

// pair is two sockets, of which the second is connected to the first.
func pair(t *testing.T, ns *netns.NetNS, address string) (to, from *net.UDPConn) {
	t.Helper()
	err := ns.Do(func() (err error) {
		to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		if err != nil {
			return err
		}
		from, err = net.DialUDP("udp", nil, to.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close(); from.Close() })
	return to, from
}

// newNetNS has a path that carries 1,500 bytes, so that some datagrams of the
// tests are longer.
func newNetNS(t *testing.T) *netns.NetNS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	err = ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(lo, 1500)
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func newSocket(t *testing.T, c *net.UDPConn) *datagram.Socket {
	t.Helper()
	s, err := datagram.NewSocket(c, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fail(t *testing.T) func(error) { return func(err error) { t.Error(err) } }

// randomMessages are of lengths that repeat, as they do in life, and of TOS
// that do, and now and then of something else.
func randomMessages(r *rand.Rand, n int) (messages []datagram.Message) {
	length, tos := 1200, uint8(0)
	for i := range n {
		switch r.IntN(8) {
		case 0:
			length = []int{0, 1, 64, 1200, 1472, 1473, 9000, 40000}[r.IntN(8)]
		case 1:
			tos = []uint8{0, 2, 0xb8}[r.IntN(3)]
		}
		m := datagram.Message{Data: bytes.Repeat([]byte{byte(i)}, length), TOS: tos}
		if length > 1 && length < 2000 && r.IntN(4) == 0 { // as the kernel hands over several
			m.Segment = length
			m.Data = append(bytes.Repeat(m.Data, 1+r.IntN(5)), m.Data[:1+r.IntN(length-1)]...)
		}
		messages = append(messages, m)
	}
	return messages
}

// words says what the datagrams of messages are.
func words(messages []datagram.Message) (all []string) {
	for _, m := range messages {
		for more := true; more; {
			var first datagram.Message
			first, m, more = m.Cut()
			all = append(all, fmt.Sprintf("%d of %x, TOS %#x", len(first.Data), first.Data[:min(1, len(first.Data))], first.TOS))
		}
	}
	return all
}

// TestSend: whatever is sent at once arrives as it is, whether its reader takes
// several datagrams as one or not.
func TestSend(t *testing.T) {
	ns := newNetNS(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			to, from := pair(t, ns, address)
			receiver, sender := newSocket(t, to), newSocket(t, from)
			for seed := range uint64(50) {
				sent := randomMessages(rand.New(rand.NewPCG(seed, 0)), 40)
				want := words(sent)
				sender.Send(netip.AddrPort{}, sent, fail(t))
				var got []string
				receiver.Read(func(messages []datagram.Message) bool {
					got = append(got, words(messages)...)
					return len(got) < len(want)
				}, fail(t))
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: got\n%q\nwant\n%q", seed, got, want)
				}
			}
		})
	}
}

// TestTogether: datagrams of one length travel as one, or nothing is gained.
func TestTogether(t *testing.T) {
	to, from := pair(t, newNetNS(t), "127.0.0.1:0")
	receiver, sender := newSocket(t, to), newSocket(t, from)
	messages := make([]datagram.Message, 32)
	for i := range messages {
		messages[i].Data = make([]byte, 1200)
	}
	sender.Send(netip.AddrPort{}, messages, fail(t))
	receiver.Read(func(messages []datagram.Message) bool {
		if len(messages) != 1 || messages[0].Len() != 32 {
			t.Errorf("%d messages came, of %d datagrams the first, want 1 of 32", len(messages), messages[0].Len())
		}
		return false
	}, fail(t))
}

// TestAnswer: what is read can be sent to where it came from, by a socket that
// is not connected.
func TestAnswer(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(address, func(t *testing.T) {
			to, from := pair(t, newNetNS(t), address)
			receiver, sender := newSocket(t, to), newSocket(t, from)
			sender.Send(netip.AddrPort{}, []datagram.Message{{Data: []byte("ping"), TOS: 0xb8}}, fail(t))
			receiver.Read(func(messages []datagram.Message) bool {
				receiver.Send(messages[0].Peer, messages, fail(t))
				return false
			}, fail(t))
			sender.Read(func(messages []datagram.Message) bool {
				if got := words(messages); !slices.Equal(got, []string{"4 of 70, TOS 0xb8"}) {
					t.Errorf("got %q", got)
				}
				return false
			}, fail(t))
		})
	}
}

// TestTooLong: what can not be sent is told once, and keeps nothing back.
func TestTooLong(t *testing.T) {
	to, from := pair(t, newNetNS(t), "127.0.0.1:0")
	receiver, sender := newSocket(t, to), newSocket(t, from)
	var told []error
	sender.Send(netip.AddrPort{}, []datagram.Message{
		{Data: []byte("a")}, {Data: make([]byte, 65520)}, {Data: []byte("b")},
	}, func(err error) { told = append(told, err) })
	if len(told) != 1 || !errors.Is(told[0], syscall.EMSGSIZE) {
		t.Errorf("told of %v, want EMSGSIZE", told)
	}
	var got []string
	receiver.Read(func(messages []datagram.Message) bool {
		got = append(got, words(messages)...)
		return len(got) < 2
	}, fail(t))
	if want := []string{"1 of 61, TOS 0x0", "1 of 62, TOS 0x0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
