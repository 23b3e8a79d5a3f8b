//go:build linux

package interop

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/waybill-net/waybill/internal/testenv"
)

// What a server of the resolver's does with a question.
type behaviour string

const (
	answers   behaviour = "answers"
	isSilent  behaviour = "is silent"
	failsOnce behaviour = "fails" // SERVFAIL
	isLate    behaviour = "is late"
)

// TestResolver looks names up with musl's resolver, behind two proxies of our
// own. It asks all of its servers from one socket that is not connected, of IPv6
// if one of them has IPv6, and drops what comes from nobody whom it has asked.
func TestResolver(t *testing.T) {
	lookup := filepath.Join(openDir(t), "lookup")
	if out, err := exec.Command("musl-gcc", "-static", "-o", lookup, "testdata/lookup.c").CombinedOutput(); err != nil {
		t.Fatalf("musl-gcc: %v\n%s", err, out)
	}
	both4 := [2]netip.Addr{testenv.Outside4, testenv.Beside4}
	both6 := [2]netip.Addr{testenv.Outside6, testenv.Beside6}
	mixed := [2]netip.Addr{testenv.Outside4, testenv.Outside6}
	for _, tt := range []struct {
		servers       [2]netip.Addr
		first, second behaviour
		want          int // whose answer is taken
	}{
		{both4, isSilent, answers, 2},
		{both4, answers, isSilent, 1},
		{both4, failsOnce, answers, 2},
		{both4, answers, failsOnce, 1},
		{both4, isLate, answers, 2},
		{both6, failsOnce, answers, 2},
		{both6, answers, isSilent, 1},
		{mixed, failsOnce, answers, 2},
		{mixed, answers, failsOnce, 1},
	} {
		t.Run(fmt.Sprintf("%s %s, %s %s", tt.servers[0], tt.first, tt.servers[1], tt.second), func(t *testing.T) {
			t.Parallel()
			f := startForwarding(t, dnsPort, os.Args[0], inspectArgs(forwarderPort)...)
			serveDNS(t, f.env, tt.servers[0], tt.first.serve(1))
			serveDNS(t, f.env, tt.servers[1], tt.second.serve(2))
			dir := t.TempDir()
			conf, trace := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "trace")
			write(t, conf, fmt.Appendf(nil, "nameserver %s\nnameserver %s\n", tt.servers[0], tt.servers[1]))
			got := f.env.Run("app", "unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf &&
				exec strace -x -s 512 -e trace=sendto,recvfrom,recvmsg -o "$1" "$2" some.example`, conf, trace, lookup)
			if want := fmt.Sprintf("198.51.100.%d\n", tt.want); got != want {
				t.Errorf("it found %q, want %q", got, want)
			}
			checkTrace(t, trace, tt.servers)
		})
	}
}

// serve answers as the server of this number.
func (b behaviour) serve(number byte) miekg.HandlerFunc {
	return func(w miekg.ResponseWriter, question *miekg.Msg) {
		answer := new(miekg.Msg).SetReply(question)
		q := question.Question[0]
		switch {
		case b == isSilent:
			return
		case b == isLate:
			time.Sleep(100 * time.Millisecond)
		case b == failsOnce:
			answer.Rcode = miekg.RcodeServerFailure
		}
		header := miekg.RR_Header{Name: q.Name, Rrtype: miekg.TypeA, Class: miekg.ClassINET}
		address := &miekg.A{Hdr: header, A: net.IPv4(198, 51, 100, number)}
		if q.Qtype == miekg.TypeA && answer.Rcode == miekg.RcodeSuccess {
			answer.Answer = []miekg.RR{address}
		}
		answer.Extra = []miekg.RR{address} // tells whose answer it is
		w.WriteMsg(answer)
	}
}

var (
	callLine     = regexp.MustCompile(`^(sendto|recvfrom|recvmsg)\((\d+), (.*)\) = \d+$`)
	tracedAddr   = regexp.MustCompile(`(?:inet_addr\(|inet_pton\(AF_INET6, )"([0-9a-f.:]+)"`)
	tracedServer = regexp.MustCompile(`\\xc6\\x33\\x64\\x0([12])`)
)

// checkTrace: it asked both servers from one socket, and each answer came from
// the address of the server who gave it.
func checkTrace(t *testing.T, trace string, servers [2]netip.Addr) {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	sockets, asked, answered := map[string]bool{}, map[netip.Addr]bool{}, 0
	for line := range strings.Lines(string(text)) {
		call := callLine.FindStringSubmatch(strings.TrimSpace(line))
		if call == nil {
			continue
		}
		addr := tracedAddr.FindStringSubmatch(call[3])
		if addr == nil {
			t.Fatalf("no address in %s", line)
		}
		peer := netip.MustParseAddr(addr[1]).Unmap()
		if sockets[call[2]] = true; call[1] == "sendto" {
			asked[peer] = true
			continue
		}
		server := tracedServer.FindStringSubmatch(call[3])
		if server == nil || peer != servers[server[1][0]-'1'] {
			t.Errorf("an answer that is not of %s: %s", peer, line)
		}
		answered++
	}
	if len(sockets) != 1 || !asked[servers[0]] || !asked[servers[1]] || answered == 0 {
		t.Errorf("it used %d sockets, asked %v and read %d answers:\n%s", len(sockets), asked, answered, text)
	}
}
