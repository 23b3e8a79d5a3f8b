//go:build linux

package interop

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	miekg "github.com/miekg/dns"

	"github.com/waybill-net/waybill/internal/testenv"
)

const dnsPort = 53

// TestDNSForwarder puts dnsmasq, as it is, between an application and its
// resolver, and our own proxy behind it: each question goes through both once,
// is answered, and comes back from where it was asked.
func TestDNSForwarder(t *testing.T) {
	for _, tt := range []struct {
		name          string
		asked, server netip.Addr
	}{
		{"the same server", testenv.Outside4, testenv.Outside4},
		{"the same server, IPv6", testenv.Outside6, testenv.Outside6},
		{"another server", testenv.Beside4, testenv.Outside4},
		{"another server, of the other family", testenv.Beside6, testenv.Outside4},
	} {
		for _, transport := range []string{"+notcp", "+tcp"} {
			for _, bind := range []string{"--bind-interfaces", "--bind-dynamic"} {
				t.Run(tt.name+transport+bind, func(t *testing.T) {
					t.Parallel()
					f := startDNSMasq(t, tt.server, bind)
					got := f.env.Run("app", "dig", "+short", "+tries=1", "+time=5", transport, "@"+tt.asked.String(), "host-7.example")
					if got != "198.51.100.7\n" {
						t.Errorf("dig got %q", got)
					}
					f.checkDNS(tt.asked, tt.server)
				})
			}
		}
	}
}

// checkDNS: what dnsmasq asks its server goes on with the flow if it is the
// one that the application asked, and begins another one otherwise.
func (f *forwarding) checkDNS(asked, server netip.Addr) {
	f.t.Helper()
	first := "dig hop 0 redirected forwarder"
	want, inherited := []string{"dnsmasq hop 0 redirected inspect implied", "interop.test hop 1 passed"}, 0
	if asked == server {
		want, inherited = []string{first, "dnsmasq hop 1 redirected inspect inherited", "interop.test hop 2 passed"}, 1
	} else if legs, _ := f.legs(asked, 1); !slices.Equal(legs, []string{first}) {
		f.t.Errorf("to %s there were %q", asked, legs)
	}
	legs, flows := f.legs(server, len(want))
	if !slices.Equal(legs, want) || len(flows) != 1 {
		f.t.Errorf("to %s there were, in flows %s,\n%s\nwant\n%s", server, flows, strings.Join(legs, "\n"), strings.Join(want, "\n"))
	}
	f.checkCounters(2, inherited)
}

// TestDNSForwarderManyAtOnce: dnsmasq dials right after it has read a question,
// so the kernel knows which question it forwards.
func TestDNSForwarderManyAtOnce(t *testing.T) {
	const clients, questions = 8, 20
	f := startDNSMasq(t, testenv.Outside4, "--bind-interfaces")
	var asking sync.WaitGroup
	for i := range clients {
		asking.Go(func() {
			args := []string{"+short", "+tries=1", "+time=10"}
			var want string
			for j := range questions {
				args = append(args, "@"+testenv.Outside4.String(), fmt.Sprintf("host-%d.example", i*questions+j))
				want += fmt.Sprintf("198.51.100.%d\n", i*questions+j)
			}
			if got, err := f.env.TryRun("app", "dig", args...); err != nil || got != want {
				t.Errorf("client %d got %q, %v", i, got, err)
			}
		})
	}
	asking.Wait()
	f.checkCounters(2*clients*questions, clients*questions)
}

// startDNSMasq starts dnsmasq, which asks the server, and the server.
func startDNSMasq(t *testing.T, server netip.Addr, bind string) *forwarding {
	t.Helper()
	f := startForwarding(t, dnsPort, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root",
		"--no-resolv", "--no-hosts", "--cache-size=0", "--server="+server.String(),
		bind, "--listen-address=127.0.0.1,::1", fmt.Sprintf("--port=%d", forwarderPort))
	serveDNS(t, f.env, server, answerHost)
	return f
}

// serveDNS is a server of DNS at an address, over UDP and TCP, outside the scope.
func serveDNS(t *testing.T, env *testenv.Env, at netip.Addr, handler miekg.HandlerFunc) {
	t.Helper()
	address := netip.AddrPortFrom(at, dnsPort).String()
	for _, s := range []*miekg.Server{
		{PacketConn: env.ListenPacket(address), Handler: handler},
		{Listener: env.Listen(address), Handler: handler},
	} {
		go s.ActivateAndServe()
	}
}

// answerHost: host-7.example has the address 198.51.100.7.
func answerHost(w miekg.ResponseWriter, question *miekg.Msg) {
	answer := new(miekg.Msg).SetReply(question)
	q := question.Question[0]
	var n byte
	if _, err := fmt.Sscanf(q.Name, "host-%d.example.", &n); err != nil {
		answer.Rcode = miekg.RcodeNameError
	} else if q.Qtype == miekg.TypeA {
		answer.Answer = []miekg.RR{&miekg.A{
			Hdr: miekg.RR_Header{Name: q.Name, Rrtype: miekg.TypeA, Class: miekg.ClassINET}, A: net.IPv4(198, 51, 100, n),
		}}
	}
	w.WriteMsg(answer)
}

// lookUp asks resolvers that there are not, for which a forwarder answers.
func (s *stage) lookUp(t *testing.T) {
	t.Helper()
	serveDNS(t, s.env, testenv.Outside4, answerHost)
	for _, resolver := range []netip.Addr{testenv.Beside4, testenv.Beside6} {
		for _, transport := range []string{"+notcp", "+tcp"} {
			got := s.env.Run(appCgroup, "dig", "+short", "+tries=1", "+time=5", transport, "@"+resolver.String(), "host-7.example")
			if got != "198.51.100.7\n" {
				t.Errorf("dig %s @%s got %q", transport, resolver, got)
			}
		}
	}
}
