//go:build linux

package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/waybill-net/waybill/internal/inspect"
	"github.com/waybill-net/waybill/internal/policy"
	sniff "github.com/waybill-net/waybill/internal/quic"
	"github.com/waybill-net/waybill/internal/testenv"
)

// Programs that TestQUICBlocked starts: see TestMain.
const (
	quicBlockRole = "quic-block"
	quicNamesRole = "quic-names"
)

const blockedName = "ads.example"

// TestQUICBlocked: of several connections that a client makes from one port,
// those to a blocked name are refused, at once and with the reason, and the
// others are not. Of the hellos that are refused the server gets no part. It may
// be at the port of DNS.
func TestQUICBlocked(t *testing.T) {
	for _, port := range []uint16{443, dnsPort} {
		t.Run(strconv.Itoa(int(port)), func(t *testing.T) {
			t.Parallel()
			testQUICBlocked(t, port)
		})
	}
}

func testQUICBlocked(t *testing.T, port uint16) {
	env := testenv.New(t)
	chain := quicChain(env, "a")
	chain.Filters[0].Ports = []policy.PortRange{policy.Port(port)}
	e := enforce(t, env, chain)
	trusted, cert := trustedCertificate(t)
	proxy := env.Start("a", os.Args[0], quicBlockRole, "udp:127.0.0.1:7001", "udp:[::1]:7001")
	address := netip.AddrPortFrom(testenv.Outside4, port).String()
	server := &witness{PacketConn: env.ListenPacket(address)}
	serveQUIC(t, server, cert)
	var got []string
	if err := json.Unmarshal([]byte(env.Run("app", os.Args[0], quicNamesRole, address, trusted)), &got); err != nil {
		t.Fatal(err)
	}
	refused := "CONNECTION_REFUSED (remote): " + blockedName + " is blocked by " + blockedName
	if want := []string{"", refused, "", refused}; !slices.Equal(got, want) {
		t.Errorf("connections ended with %q, want %q", got, want)
	}
	if line, want := proxy.Stop(syscall.SIGTERM), ": QUIC "+blockedName+": blocked by "+blockedName; !strings.HasSuffix(line, want) {
		t.Errorf("the proxy's last line is %s; want %s", line, want)
	}
	if names := server.names(); !slices.Equal(names, []string{originName, originName}) {
		t.Errorf("the server was sent hellos for %q", names)
	}
	if c, err := e.Counters(); err != nil || c["redirected"] != 1 {
		t.Errorf("counters %v, %v: it is one flow", c, err)
	}
}

// witness reads the hellos that come to a server.
type witness struct {
	net.PacketConn

	mu    sync.Mutex
	flow  sniff.Flow
	begun []*sniff.Connection
}

func (w *witness) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := w.PacketConn.ReadFrom(b)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if c := w.flow.Read(b[:n]); c != nil && !slices.Contains(w.begun, c) {
			w.begun = append(w.begun, c)
		}
	}
	return n, from, err
}

// names are those of all connections that were begun: of a hello that is not
// complete, or in error, it is empty.
func (w *witness) names() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.begun {
		if c.Hello == nil {
			names = append(names, "")
			continue
		}
		names = append(names, c.Hello.ServerName)
	}
	return names
}

func runQUICBlock(ctx context.Context, addresses []string) error {
	opts := inspect.Options{Output: os.Stdout, Ready: func() { os.Stdout.WriteString("ready\n") }}
	if err := opts.Rules.Add(blockedName); err != nil {
		return err
	}
	return inspect.Run(ctx, addresses, opts)
}

// runQUICNames connects four times, in turn to the origin's name and to a
// blocked one, and prints how each ended.
func runQUICNames(address, trusted string) error {
	pem, err := os.ReadFile(trusted)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("no certificate in " + trusted)
	}
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	transport := &quic.Transport{Conn: socket}
	defer transport.Close()
	results := make([]string, 4)
	for i := range results {
		name := originName
		if i%2 == 1 {
			name = blockedName
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		c, err := transport.Dial(ctx, to, &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{quicProtocol}}, nil)
		cancel()
		if err != nil {
			results[i] = err.Error()
			continue
		}
		c.CloseWithError(0, "")
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}
