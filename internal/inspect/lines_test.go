package inspect

import (
	"strings"
	"testing"
)

func TestProtocol(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "the server speaks first",
		"\x16\x03\x01\x00\x05":               "TLS",
		"GET /x HTTP/1.1\r\nHost: a\r\n\r\n": `HTTP "GET /x HTTP/1.1"`,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":   "HTTP/2",
		"SSH-2.0-OpenSSH_9\r\n":              `"SSH-2.0-OpenSSH_9"`,
		"\x1b[2J\x00":                        `5 bytes, "\x1b[2J\x00"`,
		"GET /\x1b[31m" + strings.Repeat("x", 99): `109 bytes, "GET /\x1b[31m` + strings.Repeat("x", 50) + `"…`,
	} {
		if got := protocol([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
