//go:build linux

package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/proxy"
)

// The two proxies of the demo know nothing of each other. Each looks at the
// first bytes of a connection in its own way.
var inspectors = map[string]func(*waybill.Conn, []byte) proxy.Verdict{
	"adblock": blockAds,
	"dlp":     blockSecrets,
}

var adHosts = [][]byte{[]byte("ads.example"), []byte("tracker.example")}

// blockAds reads the Host line of an HTTP request.
func blockAds(_ *waybill.Conn, first []byte) proxy.Verdict {
	for line := range bytes.Lines(first) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !bytes.EqualFold(name, []byte("host")) {
			continue
		}
		for _, host := range adHosts {
			if bytes.HasSuffix(bytes.TrimSpace(value), host) {
				return proxy.Block
			}
		}
	}
	return proxy.Pass
}

var secrets = [][]byte{[]byte("BEGIN PRIVATE KEY"), []byte("password=")}

// blockSecrets looks for what must not leave the house.
func blockSecrets(_ *waybill.Conn, first []byte) proxy.Verdict {
	for _, s := range secrets {
		if bytes.Contains(first, s) {
			return proxy.Block
		}
	}
	return proxy.Pass
}

// hop is what a proxy process prints, as a line of JSON, for each connection.
type hop struct {
	Proxy   string        `json:"proxy"`
	Dst     string        `json:"original_destination"`
	Process string        `json:"original_process"`
	State   string        `json:"state"`
	Hops    int           `json:"hops"`
	Verdict proxy.Verdict `json:"verdict"`
	Start   time.Time     `json:"start"`
	AddedUS float64       `json:"added_us"`
	Err     string        `json:"error,omitempty"`
}

// RunProxy is one of the demo's proxies, as a process of its own. It prints
// "ready" and then its hops.
func RunProxy(ctx context.Context, name string, addresses []string, maxConns int, stdout io.Writer) error {
	inspect, ok := inspectors[name]
	if !ok {
		return fmt.Errorf("no demo proxy %q", name)
	}
	var (
		mu  sync.Mutex // one line at a time
		out = json.NewEncoder(stdout)
		p   = proxy.Proxy{Inspect: inspect, MaxConns: maxConns}
	)
	p.Report = func(e proxy.Event) {
		mu.Lock()
		defer mu.Unlock()
		out.Encode(newHop(name, e))
	}
	var serving sync.WaitGroup
	for _, address := range addresses {
		l, err := waybill.Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		serving.Go(func() {
			if err := p.Serve(ctx, l); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			}
		})
	}
	fmt.Fprintln(stdout, "ready")
	serving.Wait()
	return nil
}

func newHop(name string, e proxy.Event) hop {
	origin := e.Conn.Origin()
	h := hop{
		Proxy:   name,
		Dst:     e.Conn.OriginalDestination().String(),
		Process: fmt.Sprintf("%s[%d]", origin.Comm, origin.TGID),
		State:   e.State.String(),
		Hops:    e.Hops,
		Verdict: e.Verdict,
		Start:   e.Start,
		AddedUS: float64(e.Added.Nanoseconds()) / 1000,
	}
	if e.Err != nil {
		h.Err = e.Err.Error()
	}
	return h
}
