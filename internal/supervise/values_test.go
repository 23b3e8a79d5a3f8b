//go:build linux

package supervise

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	var (
		b   backoff
		got []time.Duration
	)
	for _, ran := range []time.Duration{0, 0, 0, 0, 0, 0, 0, stable, 0} {
		got = append(got, b.next(ran)/time.Second)
	}
	if want := []time.Duration{1, 2, 4, 8, 16, 30, 30, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("waits of %d seconds, want %d", got, want)
	}
}

func TestLookupUser(t *testing.T) {
	for _, tt := range []struct {
		spec     string
		uid, gid uint32
		err      string
	}{
		{"root", 0, 0, ""},
		{"0", 0, 0, ""},
		{"nobody", 65534, 65534, ""},
		{"nobody:0", 65534, 0, ""},
		{"nobody:root", 65534, 0, ""},
		{"4242:4343", 4242, 4343, ""},
		{"4242", 0, 0, "give its group too"},
		{"no-such-user", 0, 0, "no such user"},
		{"no-such-user:0", 0, 0, "no such user"},
		{"root:no-such-group", 0, 0, "no such group"},
		{"4294967296:1", 0, 0, "no such user"},
		{"", 0, 0, "no such user"},
	} {
		u, err := LookupUser(tt.spec)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.spec, err, tt.err)
			}
			continue
		}
		if err != nil || u.UID != tt.uid || u.GID != tt.gid {
			t.Errorf("%q: %+v, %v; want %d:%d", tt.spec, u, err, tt.uid, tt.gid)
		}
	}
}

// Lines that /proc/net/tcp and tcp6 showed on a little-endian machine.
func TestParseProcAddr(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F:1B59":                         "127.0.0.1:7001",
		"00000000:0050":                         "0.0.0.0:80",
		"00000000000000000000000001000000:1B59": "[::1]:7001",
		"B80D0120000000000000000001000000:01BB": "[2001:db8::1]:443",
	} {
		got, err := parseProcAddr(in)
		if err != nil || got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0100007F", "01:50", "0100007G:50"} {
		if got, err := parseProcAddr(in); err == nil {
			t.Errorf("%q: %s and no error", in, got)
		}
	}
}

func TestLongLinesAreCut(t *testing.T) {
	var kept tail
	var out strings.Builder
	kept.copyLines(strings.NewReader(strings.Repeat("x", 3*maxLine)+"\r\nend"), "", &out)
	lines := strings.Split(out.String(), "\n")
	if !slices.ContainsFunc(lines, func(l string) bool { return l == "end" }) || slices.ContainsFunc(lines, func(l string) bool { return len(l) > 2*maxLine }) {
		t.Errorf("%d lines, the longest of more than %d bytes, or the last lost", len(lines), 2*maxLine)
	}
}
