//go:build linux

package preset

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
)

func TestLookupKnowsWhatWasMeant(t *testing.T) {
	for in, want := range map[string]string{
		"mitmprxy": "did you mean mitmproxy?",
		"mitmdump": "there are inspect, mitmproxy, haproxy",
		"singbox":  "did you mean sing-box?",
		"haprxoy":  "did you mean haproxy?",
	} {
		if _, err := Lookup(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", in, err, want)
		}
	}
	if _, err := Lookup("nothing-like-it"); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("error %v for a name that is like none", err)
	}
}

func TestPorts(t *testing.T) {
	for in, want := range map[string][]policy.PortRange{
		"80":           {{First: 80, Last: 80}},
		"80,8000-8999": {{First: 80, Last: 80}, {First: 8000, Last: 8999}},
		"0-65535":      {{First: 0, Last: 65535}},
	} {
		if got, err := ParsePorts(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "80,", "90-80", "65536", "http", "-1", "80-"} {
		if got, err := ParsePorts(in); err == nil {
			t.Errorf("%q: %v and no error", in, got)
		}
	}
}

func TestCommonPorts(t *testing.T) {
	r := func(first, last uint16) policy.PortRange { return policy.PortRange{First: first, Last: last} }
	type ports = []policy.PortRange
	for _, tt := range []struct {
		a, b, want ports
		ok         bool
	}{
		{nil, nil, nil, true},
		{ports{r(80, 80)}, nil, ports{r(80, 80)}, true},
		{nil, ports{r(80, 90)}, ports{r(80, 90)}, true},
		{ports{r(80, 90)}, ports{r(85, 443), r(1, 80)}, ports{r(85, 90), r(80, 80)}, true},
		{ports{r(80, 80)}, ports{r(443, 443)}, nil, false},
	} {
		got, ok := CommonPorts(tt.a, tt.b)
		if ok != tt.ok || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v and %v: %v, %v; want %v, %v", tt.a, tt.b, got, ok, tt.want, tt.ok)
		}
	}
}

// prepare prepares a proxy of this name, with a program that need not be there.
func prepare(t *testing.T, name, program string, listen6 bool) (*Prepared, string) {
	t.Helper()
	p, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	p.Program = program
	site := Site{Dir: filepath.Join(t.TempDir(), name), Listen: netip.MustParseAddrPort("127.0.0.1:7001")}
	if listen6 {
		site.Listen6 = netip.MustParseAddrPort("[::1]:7001")
	}
	prepared, err := p.Prepare(site)
	if err != nil {
		t.Fatal(err)
	}
	return prepared, site.Dir
}

// TestSingBoxConfig checks what can be checked without sing-box: that it is
// JSON and listens where it should.
func TestSingBoxConfig(t *testing.T) {
	for _, listen6 := range []bool{true, false} {
		_, dir := prepare(t, "sing-box", "true", listen6)
		b, err := os.ReadFile(filepath.Join(dir, "sing-box.json"))
		if err != nil {
			t.Fatal(err)
		}
		var config struct {
			Inbounds []struct {
				Type, Listen string
				ListenPort   int `json:"listen_port"`
			}
		}
		if err := json.Unmarshal(b, &config); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
		if listen6 {
			if in := config.Inbounds[0]; in.Listen != "::1" || in.ListenPort != 7001 {
				t.Errorf("inbound %+v", in)
			}
			config.Inbounds = config.Inbounds[1:]
		}
		if in := config.Inbounds; len(in) != 1 || in[0].Type != "redirect" || in[0].Listen != "127.0.0.1" || in[0].ListenPort != 7001 {
			t.Errorf("inbounds %+v", in)
		}
	}
}

func TestNotInstalled(t *testing.T) {
	p, err := Lookup("haproxy")
	if err != nil {
		t.Fatal(err)
	}
	p.Program = "no-such-program"
	var missing *NotInstalledError
	if _, err := p.Prepare(Site{}); !errors.As(err, &missing) || missing.Hint() != "apt-get install haproxy" {
		t.Errorf("error %v, want one that says how to install haproxy", err)
	}
}

func TestWorkingDirectoryIsPrivate(t *testing.T) {
	_, dir := prepare(t, "haproxy", "true", false)
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", st.Mode(), err)
	}
}

func TestSOCKS(t *testing.T) {
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	go func() {
		for {
			c, err := origin.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	address := startSOCKS(t)
	port := origin.Addr().(*net.TCPAddr).Port
	end := string([]byte{byte(port >> 8), byte(port)})
	for request, want := range map[string]string{
		"\x05\x01\x00\x01\x7f\x00\x00\x01" + end:   "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hello",
		"\x05\x01\x00\x03\x09127.0.0.1" + end:      "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hello",
		"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00": "\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x02\x00\x01\x7f\x00\x00\x01" + end:   "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00",
		"\x05\x01\x00\x09\x7f\x00\x00\x01" + end:   "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00",
	} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "\x05\x02\x02\x00"+request)
		got, _ := io.ReadAll(io.LimitReader(c, int64(len(want)))) // a reset may follow what was left unread
		if string(got) != want {
			t.Errorf("request %q: answer %q, want %q", request, got, want)
		}
		c.Close()
	}
}

// startSOCKS starts a server until the test ends.
func startSOCKS(t *testing.T) string {
	t.Helper()
	host := netip.MustParseAddr("127.0.0.1")
	port, err := FreePort(host)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.AddrPortFrom(host, port).String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- RunSOCKS(ctx, address) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return address
		}
		if !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
	}
}
