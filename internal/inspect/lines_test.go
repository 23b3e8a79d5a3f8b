package inspect

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/waybill-net/waybill"
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

func TestSource(t *testing.T) {
	dst := netip.MustParseAddrPort("192.0.2.1:443")
	curl := waybill.Origin{Comm: "curl", TGID: 7}
	for _, c := range []struct {
		from source
		want string
	}{
		{source{curl, dst, "", 1}, "curl[7] -> 192.0.2.1:443"},
		{source{curl, dst, "/udp", 0}, "curl[7] -> 192.0.2.1:443/udp"},
		{source{curl, dst, "", 2}, "curl[7] -> 192.0.2.1:443 (proxy 2 of its way)"},
		{source{}, "-> the proxy itself"}, // it was not redirected
	} {
		if got := c.from.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
