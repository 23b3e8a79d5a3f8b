//go:build linux

package control_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control/controltest"
)

// fuzzTimeout is far more than any answer takes: beyond it the daemon hangs.
const fuzzTimeout = 20 * time.Second

// fuzzRequests are what bodies are sent to; in the first, what is sent is no
// request at all.
var fuzzRequests = []string{
	"", "PUT /v1/policy", "POST /v1/policy/explain", "POST /v1/sql", "POST /v1/run", "GET /v1/flows?follow=1", "POST /v1/status",
}

// FuzzServer: no bytes crash or hang the daemon, not even root's. Bytes that
// are no request are answered with an error or not at all; a body of any kind
// is answered, and is the sender's fault, not the daemon's.
func FuzzServer(f *testing.F) {
	b := controltest.New(f)
	socket, _ := controltest.Serve(f, b)
	ended := f.Context().Done()
	go func() {
		for {
			select {
			case <-b.Runs:
			case <-b.Ended:
			case <-ended:
				return
			}
		}
	}()
	full, err := os.ReadFile("../policyfile/testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), []byte("GET /v1/version HTTP/1.1\r\nHost: w\r\n\r\nGET /v1/flows?limit=1&since=1h HTTP/1.1\r\nHost: w\r\n\r\n"))
	f.Add(uint8(0), []byte("POST /v1/sql HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"))
	f.Add(uint8(0), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	f.Add(uint8(1), full)
	f.Add(uint8(2), []byte(`{"dst": "192.0.2.1:443", "program": "/usr/bin/curl", "user": "root", "down": ["a"]}`))
	f.Add(uint8(3), []byte(`{"query": "SELECT * FROM flows"}`))
	f.Add(uint8(4), []byte(`{"via": ["adblock"]}`))
	f.Add(uint8(5), []byte("a body"))
	f.Fuzz(func(t *testing.T, request uint8, body []byte) {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(fuzzTimeout))
		if line := fuzzRequests[int(request)%len(fuzzRequests)]; line == "" {
			sendGarbage(t, c, body)
		} else {
			sendBody(t, c, line, body)
		}
	})
}

func sendGarbage(t *testing.T, c *net.UnixConn, garbage []byte) {
	t.Helper()
	c.Write(garbage) // it may close at once, at what it does not like
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("no end after %v of %q", fuzzTimeout, garbage)
	}
	if len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.")) {
		t.Errorf("%q is answered with %q", garbage, answer)
	}
}

func sendBody(t *testing.T, c *net.UnixConn, line string, body []byte) {
	t.Helper()
	fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: waybill\r\nContent-Length: %d\r\n\r\n", line, len(body))
	c.Write(body)
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%s with %q: %v", line, body, err)
	}
	if answer.StatusCode >= 500 {
		text, _ := io.ReadAll(answer.Body)
		t.Errorf("%s with %q: %s %s", line, body, answer.Status, text)
	}
}
