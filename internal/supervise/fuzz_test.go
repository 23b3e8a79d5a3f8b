//go:build linux

package supervise

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzPrinted: whatever a program prints, and the kernel shows of a socket,
// nothing of it is lost and no line is too long.
func FuzzPrinted(f *testing.F) {
	f.Add([]byte("0100007F:1F90"))
	f.Add([]byte("00000000000000000000000001000000:0050"))
	f.Add([]byte("one\r\ntwo\n\n" + strings.Repeat("x", maxLine+1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if a, err := parseProcAddr(string(text)); err == nil && !a.IsValid() {
			t.Errorf("address %q: %v", text, a)
		}
		var (
			lines tail
			out   bytes.Buffer
		)
		lines.copyLines(iotest.HalfReader(bytes.NewReader(text)), "", &out)
		for _, line := range lines.last() {
			if len(line) > 2*maxLine {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
		want := bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		if len(text) < maxLine && len(text) > 0 {
			if got := out.Bytes(); !bytes.Equal(bytes.TrimSuffix(got, []byte("\n")), bytes.TrimSuffix(want, []byte("\n"))) {
				t.Errorf("printed %q, passed on %q", text, got)
			}
		}
	})
}
