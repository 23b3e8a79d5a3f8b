package inspect

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/proxy"
)

// source is what stands at the beginning of a line.
type source struct {
	origin   waybill.Origin
	dst      netip.AddrPort
	protocol string // "/udp"; empty: TCP
	hops     int    // of a connection of TCP
}

func (s source) String() string {
	to := "the proxy itself"
	if s.dst.IsValid() {
		to = s.dst.String()
	}
	line := "-> " + to + s.protocol
	if s.origin != (waybill.Origin{}) { // Windows tells none
		line = fmt.Sprintf("%s[%d] %s", clean(s.origin.Comm), s.origin.TGID, line)
	}
	if s.hops > 1 {
		line += fmt.Sprintf(" (proxy %d of its way)", s.hops)
	}
	return line
}

// line says something about a source.
func (s *service) line(who source, format string, args ...any) {
	if s.lines != nil {
		s.lines.add(who.String() + ": " + fmt.Sprintf(format, args...))
	}
}

// refused says how often there was no room for one more at an address.
func (s *service) refused(address string) func(int) {
	return func(n int) {
		if s.lines != nil {
			s.lines.add(fmt.Sprintf("%s: refused %d times: all of --max-flows are open", address, n))
		}
	}
}

func (s *service) report(e proxy.Event) {
	who := source{e.Conn.Origin(), e.Conn.OriginalDestination(), "", e.Hops}
	if e.Err != nil {
		s.line(who, "%v", e.Err)
		return
	}
	s.line(who, "%s", protocol(e.First))
}

// described says whether an inspector has said already what its flow is.
type described interface{ isDescribed() bool }

func (s *service) reportPackets(e proxy.PacketEvent) {
	who := source{e.Conn.Origin(), e.Conn.OriginalDestination(), "/udp", 0}
	if e.Err != nil {
		s.line(who, "%v", e.Err)
		return
	}
	if !e.Inspector.(described).isDescribed() {
		s.line(who, "%d bytes", len(e.First))
	}
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

// clean escapes what a terminal would not take for text in a word that somebody
// else chose.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar || r == ' ' }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
