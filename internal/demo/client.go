//go:build linux

package demo

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// request is what the client prints, as a line of JSON, for each request.
type request struct {
	Body string `json:"body"`
	Peer string `json:"peer"` // what getpeername said
	Err  string `json:"error,omitempty"`
}

const clientTimeout = 5 * time.Second

// RunClient is the program in front of which the proxies stand: it knows
// nothing of waybill. It makes n requests, each on a connection of its own.
func RunClient(ctx context.Context, url string, n int, stdout io.Writer) error {
	// So that the proxies see a name of its own, not that of this binary.
	if err := os.WriteFile("/proc/self/comm", []byte("demo-app"), 0); err != nil {
		return err
	}
	out := json.NewEncoder(stdout)
	for range n {
		if err := out.Encode(get(ctx, url)); err != nil {
			return err
		}
	}
	return nil
}

func get(ctx context.Context, url string) (r request) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	transport := http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, network, address)
			if err == nil {
				r.Peer = c.RemoteAddr().String()
			}
			return c, err
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.Err = err.Error()
	}
	r.Body = string(body)
	return r
}
