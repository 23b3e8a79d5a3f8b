package flow_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/waybill-net/waybill/internal/flow"
)

var update = flag.Bool("update", false, "write the drawings into testdata")

func described(events []flow.Event) flow.Flow {
	f := assemble(events...)
	f.Details = flow.Details{
		Executable: "/usr/bin/curl", Args: []string{"curl", "-s", "https://example.com/a b"},
		User: "alice", Cgroup: "/user.slice/session-3.scope", Unit: "session-3.scope",
	}
	return f
}

func forbidden() flow.Flow {
	events := append(chain()[:2:2], at(253, 1, flow.Event{
		Kind: flow.Forbidden, Provider: "dlp", Filter: "no-uploads", State: "redirected-by-other",
		Dst: netip.MustParseAddrPort("[2001:db8:85a3::8a2e:370:7334]:443"), Process: flow.Process{PID: 812, Comm: "mitmdump"},
	}))
	return described(events)
}

// lossy is a flow of which little was seen.
func lossy() flow.Flow {
	events := chain()
	return assemble(events[4], at(800, 2, flow.Event{Kind: flow.Closed, Duration: 397 * time.Microsecond, Error: "connection refused"}))
}

// ambiguous is the connection of a proxy that had two to go on with.
func ambiguous() flow.Flow {
	return assemble(
		at(0, 1, flow.Event{Kind: flow.Linked, Provider: "adblock", Links: []flow.ID{0xa1, 0xb2}, Candidates: 2}),
		at(1, 1, flow.Event{Kind: flow.Passed, Kinship: flow.Ambiguous, Dst: origin, Process: flow.Process{PID: 700, Comm: "haproxy"}}),
	)
}

// datagrams is the chain for UDP.
func datagrams() flow.Flow {
	events := chain()
	for i := range events {
		if e := &events[i]; e.Dst.IsValid() {
			e.Protocol = flow.UDP
		} else if e.Kind == flow.Closed {
			e.Sent, e.Received = 1, 2
		}
	}
	return described(events)
}

// named is the chain to an address whose name is known, which a proxy has
// chosen anew.
func named() flow.Flow {
	events := chain()
	for i := range events {
		if e := &events[i]; e.Dst.IsValid() {
			e.Name = "www.example.com"
		}
	}
	return described(events)
}

// dropped is UDP that the program has to do without.
func dropped() flow.Flow {
	return assemble(at(0, 0, flow.Event{
		Kind: flow.QUICDropped, Provider: "dlp", Filter: "web", State: "not-redirected", Protocol: flow.UDP, Dst: origin, Name: "www.example.com",
		Process: flow.Process{PID: 4711, Comm: "curl"},
	}))
}

func TestDraw(t *testing.T) {
	open := described(chain()[:2])
	hostile := described(chain()[:1])
	hostile.Details.Args = []string{"\x1b[2Jgone", "ünï", "日本語", "\u202eevil", "\xff"}
	for name, f := range map[string]flow.Flow{
		"chain": described(chain()), "forbidden": forbidden(), "lossy": lossy(), "ambiguous": ambiguous(), "open": open, "hostile": hostile,
		"udp": datagrams(), "named": named(), "dropped": dropped(),
	} {
		var got bytes.Buffer
		if err := f.Draw(&got, flow.DrawOptions{}); err != nil {
			t.Fatal(err)
		}
		golden(t, "draw-"+name+".txt", got.Bytes())
	}
}

func TestTable(t *testing.T) {
	first := described(chain())
	later := forbidden()
	long := described(retry())
	long.Dst = netip.MustParseAddrPort("[2001:db8:85a3:1234:5678:8a2e:370:7334]:443")
	long.Process.PID = 4194304
	long.Details.Executable = "/opt/some-company/a-program-with-a-long-name"
	var got bytes.Buffer
	if err := flow.Table(&got, []flow.Flow{first, later, long, lossy(), datagrams(), named(), dropped()}, flow.TableOptions{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", got.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
	for line := range strings.Lines(string(got)) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
			t.Errorf("%s: a line of %d columns: %s", name, n, line)
		}
	}
}

// TestColor: color adds escape sequences and nothing else.
func TestColor(t *testing.T) {
	strip := strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "")
	for _, f := range []flow.Flow{described(chain()), forbidden(), lossy()} {
		var with, without bytes.Buffer
		f.Draw(&with, flow.DrawOptions{Color: true})
		f.Draw(&without, flow.DrawOptions{})
		flow.Table(&with, []flow.Flow{f}, flow.TableOptions{Color: true})
		flow.Table(&without, []flow.Flow{f}, flow.TableOptions{})
		if with.Len() == without.Len() || strip.Replace(with.String()) != without.String() {
			t.Errorf("got\n%s\nwant, in color,\n%s", with.String(), without.String())
		}
	}
}

func TestJSON(t *testing.T) {
	want := described(chain())
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got flow.Flow
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, key := range []string{`"id":"00f3a9c1d2e4b567"`, `"outcome":"done"`, `"dst":"93.184.216.34:443"`, `"unit":"session-3.scope"`} {
		if !bytes.Contains(text, []byte(key)) {
			t.Errorf("%s is not in %s", key, text)
		}
	}
}

// FuzzDraw: whatever a process calls itself, no control character reaches the
// terminal.
func FuzzDraw(f *testing.F) {
	f.Add("curl", "adblock", "connection refused", 100)
	f.Add("\x1b]0;title\a", "\u202e", "\xff\x00", 1)
	f.Add("日本語\n", "a\tb", "\u0301", 60)
	f.Fuzz(func(t *testing.T, program, provider, message string, width int) {
		fl := described(chain())
		fl.Process.Comm, fl.Details.Executable, fl.Details.User = program, program, program
		fl.Details.Args = []string{program, message}
		fl.Hops[0].Provider, fl.Hops[0].Skipped[0].Provider = provider, provider
		fl.Hops[2].Error = message
		var out bytes.Buffer
		fl.Draw(&out, flow.DrawOptions{Width: width})
		flow.Table(&out, []flow.Flow{fl}, flow.TableOptions{Width: width})
		if !utf8.Valid(out.Bytes()) {
			t.Errorf("not UTF-8: %q", out.String())
		}
		for _, r := range out.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%q in %q", r, out.String())
			}
		}
	})
}

func FuzzID(f *testing.F) {
	f.Add("00f3a9c1d2e4b567")
	f.Add("-1")
	f.Fuzz(func(t *testing.T, text string) {
		var a, b flow.ID
		if a.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := b.UnmarshalText([]byte(a.String())); err != nil || a != b {
			t.Errorf("%q: read as %v, then as %v, %v", text, a, b, err)
		}
	})
}
