//go:build linux

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
)

const appCgroup = "app"

// payload is what the client does.
type payload string

const (
	payloadHTTP      payload = "http"
	payloadTLS       payload = "tls"
	payloadKeepAlive payload = "keep-alive"
	payloadRaw       payload = "raw"
	payloadHalfClose payload = "half-close"
	payloadDownload  payload = "download"
)

var payloads = []payload{payloadHTTP, payloadTLS, payloadKeepAlive, payloadRaw, payloadHalfClose, payloadDownload}

func (p payload) port() int {
	switch p {
	case payloadTLS:
		return tlsPort
	case payloadRaw, payloadHalfClose:
		return rawPort
	}
	return httpPort
}

// size of what the client asks for at once, but for a download.
func (p payload) size() int64 {
	if p == payloadRaw || p == payloadHalfClose {
		return 4 << 20
	}
	return 256 << 10
}

// requests that the origin sees.
func (p payload) requests() int {
	switch p {
	case payloadKeepAlive:
		return keepAliveRequests
	case payloadRaw, payloadHalfClose:
		return 0
	}
	return 1
}

// runClient runs the client in the cgroup of the application. It has a
// deadline of its own.
func (s *stage) runClient(load payload, host netip.Addr, size int64) (r clientReport, err error) {
	var out bytes.Buffer
	cmd := s.env.Command(appCgroup, os.Args[0], clientRole, string(load), host.String(), strconv.FormatInt(size, 10), s.trusted)
	cmd.Stdout = &out
	if err := s.env.NetNS().Do(cmd.Start); err != nil {
		return r, err
	}
	if err := cmd.Wait(); err != nil {
		return r, err
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("read what the client printed: %q: %w", out.String(), err)
	}
	return r, nil
}
