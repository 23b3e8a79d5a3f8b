//go:build linux

package preset

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// conversation is a client that has said all it will say.
type conversation struct {
	io.Reader
	io.Writer
}

// FuzzRequest: what is taken for a request of SOCKS names something to dial.
func FuzzRequest(f *testing.F) {
	for _, first := range []string{
		"", "GET / HTTP/1.1\r\n", "\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb", "\x05\x02\x00\x02\x05\x01\x00\x03\x0bexample.org\x00P",
		"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x50", "\x05\x00\x05\x02\x00\x01", "\x04\x01\x00\x50",
	} {
		f.Add([]byte(first))
	}
	f.Fuzz(func(t *testing.T, first []byte) {
		target, status, err := readSOCKSRequest(conversation{bytes.NewReader(first), io.Discard})
		// The name may be none: to dial it says so.
		if err == nil && (status != socksSucceeded || !strings.Contains(target, ":")) {
			t.Errorf("request %q: %q, status %d", first, target, status)
		}
	})
}
