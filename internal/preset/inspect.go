package preset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/proxy"
)

// forUDP stands before the addresses on which RunInspect takes UDP.
const forUDP = "udp:"

// RunInspect is the proxy of the preset inspect, as a process of its own. It
// prints a line for each connection. An address is of TCP, unless "udp:" stands
// before it.
func RunInspect(ctx context.Context, addresses []string, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		serving sync.WaitGroup
		mu      sync.Mutex
		errs    []error
	)
	for _, address := range addresses {
		serve, err := listenInspect(ctx, address, stdout)
		if err != nil {
			cancel()
			serving.Wait()
			return err
		}
		serving.Go(func() {
			defer cancel() // half a proxy is none
			if err := serve(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	serving.Wait()
	return errors.Join(errs...)
}

// listenInspect opens one of the proxy's sockets and returns what serves it.
func listenInspect(ctx context.Context, address string, stdout io.Writer) (serve func(context.Context) error, err error) {
	at, udp := strings.CutPrefix(address, forUDP)
	if udp {
		l, err := waybill.ListenPacket(ctx, "udp", at)
		if err != nil {
			return nil, err
		}
		p := proxy.Packets{Report: func(e proxy.PacketEvent) { io.WriteString(stdout, describePackets(e)+"\n") }}
		return func(ctx context.Context) error { return p.Serve(ctx, l) }, nil
	}
	l, err := waybill.Listen(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	p := proxy.Proxy{Report: func(e proxy.Event) { io.WriteString(stdout, describe(e)+"\n") }}
	return func(ctx context.Context) error { return p.Serve(ctx, l) }, nil
}

func describePackets(e proxy.PacketEvent) string {
	origin := e.Conn.Origin()
	line := fmt.Sprintf("%s[%d] -> %s/udp", origin.Comm, origin.TGID, e.Conn.OriginalDestination())
	if e.Err != nil {
		return line + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s: %d bytes", line, len(e.First))
}

func describe(e proxy.Event) string {
	origin := e.Conn.Origin()
	line := fmt.Sprintf("%s[%d] -> %s", origin.Comm, origin.TGID, e.Conn.OriginalDestination())
	if e.Hops > 1 {
		line += fmt.Sprintf(" (proxy %d of its way)", e.Hops)
	}
	if e.Err != nil {
		return line + ": " + e.Err.Error()
	}
	return line + ": " + protocol(e.First)
}

// protocol says what a connection is that begins with these bytes.
func protocol(first []byte) string {
	const shown = 60
	line, _, _ := bytes.Cut(first, []byte("\r\n"))
	switch {
	case len(first) == 0:
		return "the server speaks first"
	case bytes.HasPrefix(first, []byte{0x16, 0x03}):
		return "TLS"
	case bytes.Contains(line, []byte(" HTTP/1.")):
		return "HTTP " + printable(line, shown)
	case bytes.HasPrefix(first, []byte("PRI * HTTP/2.0")):
		return "HTTP/2"
	case bytes.HasPrefix(first, []byte("SSH-")):
		return printable(line, shown)
	}
	return fmt.Sprintf("%d bytes, %s", len(first), printable(first, shown))
}

// printable quotes bytes so that a terminal takes them for text alone.
func printable(b []byte, n int) string {
	if len(b) > n {
		return fmt.Sprintf("%q…", b[:n])
	}
	return fmt.Sprintf("%q", b)
}
