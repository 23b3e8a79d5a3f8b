package preset

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode"
)

// conversation is a client that has said all it will say.
type conversation struct {
	io.Reader
	io.Writer
}

// FuzzFirstBytes: whatever a client begins with, the line about it is one
// line of text, and what is taken for a request of SOCKS names something to dial.
func FuzzFirstBytes(f *testing.F) {
	for _, first := range []string{
		"", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "SSH-2.0-OpenSSH_9\r\n", "PRI * HTTP/2.0\r\n\r\nSM",
		"\x1b[2J HTTP/1.1\r\n", "\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb", "\x05\x02\x00\x02\x05\x01\x00\x03\x0bexample.org\x00P",
		"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x50", "\x05\x00\x05\x02\x00\x01", "\x04\x01\x00\x50",
	} {
		f.Add([]byte(first))
	}
	f.Fuzz(func(t *testing.T, first []byte) {
		line := protocol(first)
		if line == "" || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("protocol of %q: %q", first, line)
		}
		target, status, err := readSOCKSRequest(conversation{bytes.NewReader(first), io.Discard})
		// The name may be none: to dial it says so.
		if err == nil && (status != socksSucceeded || !strings.Contains(target, ":")) {
			t.Errorf("request %q: %q, status %d", first, target, status)
		}
	})
}
