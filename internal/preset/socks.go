//go:build linux

package preset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// The part of SOCKS 5 (RFC 1928) that a program needs to reach a TCP address.
const (
	socksVersion = 5
	socksNoAuth  = 0
	socksConnect = 1

	socksIPv4 = 1
	socksName = 3
	socksIPv6 = 4

	socksSucceeded      = 0
	socksFailure        = 1
	socksNotAllowed     = 7 // command not supported
	socksAddressUnknown = 8 // address type not supported

	socksTimeout = 30 * time.Second // for the handshake and for connect
)

// RunSOCKS is a SOCKS 5 server without authentication, for the proxies on this
// machine that can only use one. It returns when ctx ends.
func RunSOCKS(ctx context.Context, address string) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go serveSOCKS(ctx, c.(*net.TCPConn))
	}
}

func serveSOCKS(ctx context.Context, c *net.TCPConn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(socksTimeout))
	target, status, err := readSOCKSRequest(c)
	var upstream net.Conn
	if err == nil {
		d := net.Dialer{Timeout: socksTimeout}
		if upstream, err = d.DialContext(ctx, "tcp", target); err != nil {
			status = socksFailure
		}
	}
	// The address that we bound is nobody's business, and nobody asks.
	if _, werr := c.Write([]byte{socksVersion, status, 0, socksIPv4, 0, 0, 0, 0, 0, 0}); err != nil || werr != nil {
		return
	}
	defer upstream.Close()
	c.SetDeadline(time.Time{})
	splice(c, upstream.(*net.TCPConn))
}

// readSOCKSRequest answers the greeting and reads which address is wanted.
func readSOCKSRequest(c io.ReadWriter) (target string, status byte, err error) {
	var b [256]byte
	read := func(n byte) []byte {
		if err == nil {
			_, err = io.ReadFull(c, b[:n])
		}
		return b[:n]
	}
	if read(2)[0] != socksVersion {
		return "", socksFailure, errors.New("not SOCKS 5")
	}
	read(b[1]) // the methods of authentication; whatever they are, we want none
	if err == nil {
		_, err = c.Write([]byte{socksVersion, socksNoAuth})
	}
	request := read(4)
	if request[1] != socksConnect {
		return "", socksNotAllowed, fmt.Errorf("command %d", request[1])
	}
	var host string
	switch request[3] {
	case socksIPv4:
		host = netip.AddrFrom4([4]byte(read(4))).String()
	case socksIPv6:
		host = netip.AddrFrom16([16]byte(read(16))).String()
	case socksName:
		host = string(read(read(1)[0]))
	default:
		return "", socksAddressUnknown, fmt.Errorf("address type %d", request[3])
	}
	port := binary.BigEndian.Uint16(read(2))
	return net.JoinHostPort(host, strconv.Itoa(int(port))), socksSucceeded, err
}

// splice copies both ways until both ends have finished.
func splice(a, b *net.TCPConn) {
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(a, b)
		a.CloseWrite()
	})
	io.Copy(b, a)
	b.CloseWrite()
	back.Wait()
}
