//go:build linux

package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// originName is what the client calls the origin when it speaks TLS: the name
// in the origin's certificate.
const originName = "origin.example"

// clientRole is the name of the client as a program: see TestMain.
const clientRole = "interop-client"

const (
	keepAliveRequests = 5
	postSize          = 256 << 10
)

// deadline of the client for this many bytes, on a busy machine.
func deadline(size int64) time.Duration {
	const slowest = 8 << 20 // bytes per second
	return 30*time.Second + time.Duration(size)*time.Second/slowest
}

// clientReport is what the client prints.
type clientReport struct {
	Connections int
	Requests    int
	Bytes       int64  // of answers, all intact
	Issuer      string // of the certificate that it was shown
	Took        time.Duration
	Err         string
}

// client is the program in front of which the proxies stand. It knows nothing
// of them, but for their authorities.
type client struct {
	host   netip.Addr
	size   int64
	roots  *x509.CertPool
	report clientReport
}

// runClient has the arguments payload, host, size, file of trusted certificates.
func runClient(args []string) clientReport {
	c := client{}
	start := time.Now()
	if err := c.run(args); err != nil {
		c.report.Err = err.Error()
	}
	c.report.Took = time.Since(start)
	return c.report
}

func (c *client) run(args []string) (err error) {
	if len(args) != 4 {
		return fmt.Errorf("run client: %d arguments", len(args))
	}
	if c.host, err = netip.ParseAddr(args[1]); err != nil {
		return err
	}
	if c.size, err = strconv.ParseInt(args[2], 10, 64); err != nil {
		return err
	}
	pem, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	c.roots = x509.NewCertPool()
	c.roots.AppendCertsFromPEM(pem)
	ctx, cancel := context.WithTimeout(context.Background(), deadline(c.size))
	defer cancel()
	switch payload(args[0]) {
	case payloadHTTP, payloadDownload:
		return c.get(ctx, "http", 1)
	case payloadTLS:
		return c.get(ctx, "https", 1)
	case payloadKeepAlive:
		return c.get(ctx, "http", keepAliveRequests)
	case payloadRaw:
		return c.raw(ctx, false)
	case payloadHalfClose:
		return c.raw(ctx, true)
	}
	return fmt.Errorf("no payload %q", args[0])
}

// dial counts connections and looks at the peer: the client must see the
// address that it asked for, whoever has accepted the connection.
func (c *client) dial(ctx context.Context, port int) (*net.TCPConn, error) {
	want := netip.AddrPortFrom(c.host, uint16(port))
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", want.String())
	if err != nil {
		return nil, err
	}
	c.report.Connections++
	if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort(); got != want {
		conn.Close()
		return nil, fmt.Errorf("dial %s: the peer is %s", want, got)
	}
	return conn.(*net.TCPConn), nil
}

// get makes n requests on one connection, the first of several a POST.
func (c *client) get(ctx context.Context, scheme string, n int) error {
	port := map[string]int{"http": httpPort, "https": tlsPort}[scheme]
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, port) },
		TLSClientConfig: &tls.Config{
			RootCAs: c.roots, ServerName: originName,
			VerifyConnection: func(s tls.ConnectionState) error {
				c.report.Issuer = s.PeerCertificates[0].Issuer.CommonName
				return nil
			},
		},
		DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	url := fmt.Sprintf("%s://%s/?size=%d", scheme, net.JoinHostPort(c.host.String(), strconv.Itoa(port)), c.size)
	for i := range n {
		method, body := http.MethodGet, io.Reader(http.NoBody)
		if n > 1 && i == 0 {
			method, body = http.MethodPost, data(postSize)
		}
		req, err := http.NewRequestWithContext(ctx, method, url, body)
		if err != nil {
			return err
		}
		if method == http.MethodPost {
			req.ContentLength = postSize
		}
		if err := c.roundTrip(transport, req); err != nil {
			return fmt.Errorf("request %d of %d: %w", i+1, n, err)
		}
	}
	return nil
}

func (c *client) roundTrip(transport *http.Transport, req *http.Request) error {
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	c.report.Requests++
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 500))
		return fmt.Errorf("%s: %s", res.Status, body)
	}
	if req.Method == http.MethodPost {
		answer, err := io.ReadAll(res.Body)
		if err == nil && string(answer) != intact {
			err = fmt.Errorf("the origin says of what arrived: %s", answer)
		}
		return err
	}
	c.report.Bytes += c.size
	return checkData(res.Body, c.size)
}

// raw waits for the server to speak, sends data, and expects as much back, and
// an end. With halfClose it is the end of its own direction that makes the
// server answer.
func (c *client) raw(ctx context.Context, halfClose bool) error {
	conn, err := c.dial(ctx, rawPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	hello := make([]byte, len(greeting))
	if n, err := io.ReadFull(conn, hello); err != nil || string(hello) != greeting {
		return fmt.Errorf("read the greeting: got %q: %v", hello[:n], err)
	}
	announced := uint64(c.size)
	if halfClose {
		announced = untilEnd
	}
	if err := binary.Write(conn, binary.BigEndian, announced); err != nil {
		return err
	}
	if _, err := io.Copy(conn, data(c.size)); err != nil {
		return err
	}
	if halfClose {
		if err := conn.CloseWrite(); err != nil {
			return err
		}
	}
	c.report.Bytes = c.size
	return checkData(conn, c.size)
}
