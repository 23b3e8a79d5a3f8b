//go:build linux

package interop

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	relay "github.com/waybill-net/waybill/internal/proxy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// Programs that TestQUIC starts: see TestMain.
const (
	quicClientRole = "quic-client"
	quicRelayRole  = "quic-relay"
)

const (
	quicPort     = "443"
	quicProtocol = "bytes"
)

// TestQUIC downloads over QUIC through two proxies, which relay its datagrams:
// what has a checksum of its own for each of them arrives, over both families.
func TestQUIC(t *testing.T) {
	size := int64(smallDownload)
	if *full {
		size = largeDownload
	}
	env := testenv.New(t)
	e := enforce(t, env, quicChain(env, "a", "b"))
	trusted, cert := trustedCertificate(t)
	env.Start("a", os.Args[0], quicRelayRole, "7001")
	env.Start("b", os.Args[0], quicRelayRole, "7002")
	for _, host := range []netip.Addr{testenv.Outside4, testenv.Outside6} {
		t.Run(host.String(), func(t *testing.T) {
			serveQUIC(t, env.ListenPacket(net.JoinHostPort(host.String(), quicPort)), cert)
			got := strings.TrimSpace(env.Run("app", os.Args[0], quicClientRole, host.String(), strconv.FormatInt(size, 10), trusted))
			if want := fmt.Sprintf("%x", quicSum(size)); got != want {
				t.Errorf("the client got bytes with the sum %s, want %s", got, want)
			}
		})
	}
	if c, err := e.Counters(); err != nil || c["redirected"] != 4 || c["set"] != 4 {
		t.Errorf("counters %v, %v: not every flow went through both proxies, once", c, err)
	}
}

// enforce applies a policy to the scope of env until the test ends.
func enforce(t *testing.T, env *testenv.Env, p policy.Policy) *engine.Engine {
	t.Helper()
	e, err := engine.Open(engine.Options{Scope: env.Scope})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.Apply(p); err != nil {
		t.Fatal(err)
	}
	return e
}

// trustedCertificate is the origin's, and the file of the authority that its
// clients are to trust.
func trustedCertificate(t *testing.T) (trusted string, cert tls.Certificate) {
	t.Helper()
	authority, cert := newCertificate(t)
	trusted = filepath.Join(t.TempDir(), "authority.pem")
	write(t, trusted, authority)
	return trusted, cert
}

func quicChain(env *testenv.Env, names ...string) policy.Policy {
	var p policy.Policy
	for i, name := range names {
		port := uint16(7001 + i)
		p.Providers = append(p.Providers, policy.Provider{
			Name: name, Weight: int32(-i), Cgroup: env.Cgroup(name),
			UDP:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port),
			UDP6: netip.AddrPortFrom(netip.IPv6Loopback(), port),
		})
		p.Filters = append(p.Filters, policy.Filter{
			Provider: name, Protocols: []policy.Protocol{policy.UDP}, Ports: []policy.PortRange{policy.Port(443)},
		})
	}
	return p
}

// quicBytes are as random as they are the same for both sides.
func quicBytes(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{}), size)
}

func quicSum(size int64) []byte {
	h := sha256.New()
	io.Copy(h, quicBytes(size))
	return h.Sum(nil)
}

// serveQUIC answers a stream with as many bytes as it asks for.
func serveQUIC(t *testing.T, socket net.PacketConn, cert tls.Certificate) {
	t.Helper()
	l, err := quic.Listen(socket, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{quicProtocol}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go answerQUIC(c)
		}
	}()
}

func answerQUIC(c *quic.Conn) {
	s, err := c.AcceptStream(context.Background())
	if err != nil {
		return
	}
	var size int64
	fmt.Fscanln(s, &size)
	io.Copy(s, quicBytes(size))
	s.Close()
}

// runQUICClient prints the sum of what it gets.
func runQUICClient(host, size, trusted string) error {
	pem, err := os.ReadFile(trusted)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("no certificate in " + trusted)
	}
	ctx := context.Background()
	c, err := quic.DialAddr(ctx, net.JoinHostPort(host, quicPort), &tls.Config{RootCAs: roots, ServerName: originName, NextProtos: []string{quicProtocol}}, nil)
	if err != nil {
		return err
	}
	defer c.CloseWithError(0, "")
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(s, size)
	h := sha256.New()
	if _, err := io.Copy(h, s); err != nil {
		return err
	}
	fmt.Printf("%x\n", h.Sum(nil))
	return nil
}

// runQUICRelay is a proxy of UDP, for both families.
func runQUICRelay(ctx context.Context, port string) error {
	ended := make(chan error, 2)
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := waybill.ListenPacket(ctx, "udp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		go func() { ended <- new(relay.Packets).Serve(ctx, l) }()
	}
	fmt.Println("ready")
	return errors.Join(<-ended, <-ended)
}
