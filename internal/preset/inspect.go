package preset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/proxy"
)

// RunInspect is the proxy of the preset inspect, as a process of its own. It
// prints a line for each connection.
func RunInspect(ctx context.Context, addresses []string, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		p       = proxy.Proxy{Report: func(e proxy.Event) { io.WriteString(stdout, describe(e)+"\n") }}
		serving sync.WaitGroup
		mu      sync.Mutex
		errs    []error
	)
	for _, address := range addresses {
		l, err := waybill.Listen(ctx, "tcp", address)
		if err != nil {
			cancel()
			serving.Wait()
			return err
		}
		serving.Go(func() {
			defer cancel() // half a proxy is none
			if err := p.Serve(ctx, l); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	serving.Wait()
	return errors.Join(errs...)
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
