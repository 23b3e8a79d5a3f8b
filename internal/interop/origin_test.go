//go:build linux

package interop

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"

	"github.com/waybill-net/waybill/internal/testenv"
)

const (
	httpPort = 80
	tlsPort  = 443
	rawPort  = 7
)

// greeting is what the origin says first on the raw port, as many a protocol
// begins: a proxy that waits for its client to speak hangs.
const greeting = "220 origin\r\n"

// origin answers on every address of its network namespace, from outside the
// scope, and counts what arrives at each of them.
type origin struct {
	mu       sync.Mutex
	arrivals map[netip.Addr]arrivals
}

// arrivals at one address.
type arrivals struct{ Connections, Requests int }

func startOrigin(t *testing.T, env *testenv.Env, cert tls.Certificate) *origin {
	t.Helper()
	o := &origin{arrivals: make(map[netip.Addr]arrivals)}
	web := &http.Server{
		Handler:   http.HandlerFunc(o.serveHTTP),
		ConnState: o.countConnection,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		ErrorLog:  log.New(io.Discard, "", 0), // a proxy that looks at a certificate and hangs up is no news
	}
	go web.Serve(listen(env, httpPort))
	go web.ServeTLS(listen(env, tlsPort), "", "")
	go o.serveRaw(listen(env, rawPort))
	t.Cleanup(func() { web.Close() })
	return o
}

func listen(env *testenv.Env, port int) net.Listener {
	return env.Listen(net.JoinHostPort("::", strconv.Itoa(port)))
}

func (o *origin) count(local net.Addr, n arrivals) {
	addr := local.(*net.TCPAddr).AddrPort().Addr().Unmap()
	o.mu.Lock()
	defer o.mu.Unlock()
	sum := o.arrivals[addr]
	o.arrivals[addr] = arrivals{sum.Connections + n.Connections, sum.Requests + n.Requests}
}

func (o *origin) at(addr netip.Addr) arrivals {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.arrivals[addr]
}

func (o *origin) countConnection(c net.Conn, state http.ConnState) {
	if state == http.StateNew {
		o.count(c.LocalAddr(), arrivals{Connections: 1})
	}
}

// intact is the origin's answer to a POST that arrived as it was sent.
const intact = "intact"

// serveHTTP answers a GET with as much data as it asks for, and a POST with
// what it finds in it.
func (o *origin) serveHTTP(w http.ResponseWriter, r *http.Request) {
	o.count(r.Context().Value(http.LocalAddrContextKey).(net.Addr), arrivals{Requests: 1})
	if r.Method == http.MethodPost {
		answer := intact
		if err := checkData(r.Body, r.ContentLength); err != nil {
			answer = err.Error()
		}
		io.WriteString(w, answer)
		return
	}
	size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	io.CopyBuffer(struct{ io.Writer }{w}, data(size), make([]byte, blockSize))
}

func (o *origin) serveRaw(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		o.count(c.LocalAddr(), arrivals{Connections: 1})
		go serveRawConn(c.(*net.TCPConn))
	}
}

// serveRawConn greets, reads as much as the client says that it will send, or
// all until its end, and if that is intact sends as much.
func serveRawConn(c *net.TCPConn) {
	defer c.Close()
	if _, err := io.WriteString(c, greeting); err != nil {
		return
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	var in io.Reader = c
	if size := binary.BigEndian.Uint64(head); size != untilEnd {
		in = io.LimitReader(c, int64(size))
	}
	var got dataChecker
	if _, err := io.Copy(&got, in); err != nil {
		c.SetLinger(0) // a reset: an orderly end would say nothing
		return
	}
	io.Copy(c, data(got.size))
}

// untilEnd in place of a size: the client ends its direction.
const untilEnd = 0
