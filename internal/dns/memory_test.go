package dns_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/waybill-net/waybill/internal/dns"
)

// response answers a question with records as a zone file has them.
func response(t testing.TB, name string, qtype uint16, records ...string) *miekg.Msg {
	t.Helper()
	m := new(miekg.Msg).SetReply(query(name, qtype))
	for _, text := range records {
		record, err := miekg.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, record)
	}
	return m
}

func learn(t testing.TB, m *dns.Memory, name string, records ...string) int {
	t.Helper()
	return read(t, m, pack(t, response(t, name, miekg.TypeA, records...)))
}

// read adds what a message says, and returns how many addresses that are.
func read(t testing.TB, m *dns.Memory, message []byte) int {
	t.Helper()
	found, ok := dns.Resolve(message)
	if !ok {
		return 0
	}
	if err := m.Add(found); err != nil {
		t.Error(err)
	}
	return len(found.Addresses)
}

func namesOf(m *dns.Memory, addr string) string {
	var all []string
	for _, n := range m.Names(netip.MustParseAddr(addr)) {
		all = append(all, n.Name)
	}
	return strings.Join(all, " ")
}

func TestLearn(t *testing.T) {
	for _, tt := range []struct {
		what    string
		name    string
		qtype   uint16
		records []string
		learnt  map[string]string
		not     string
	}{
		{
			what: "addresses", name: "Www.Example.", qtype: miekg.TypeA,
			records: []string{"www.example. 60 IN A 192.0.2.1", "WWW.EXAMPLE. 60 IN A 192.0.2.2"},
			learnt:  map[string]string{"192.0.2.1": "www.example", "192.0.2.2": "www.example", "::ffff:192.0.2.1": "www.example"},
			not:     "192.0.2.3",
		},
		{
			what: "IPv6", name: "www.example.", qtype: miekg.TypeAAAA,
			records: []string{"www.example. 60 IN AAAA 2001:db8::1", "www.example. 60 IN AAAA ::ffff:192.0.2.1"},
			learnt:  map[string]string{"2001:db8::1": "www.example", "2001:db8::1%eth0": "www.example", "192.0.2.1": "www.example"},
			not:     "2001:db8::2",
		},
		{
			what: "aliases, in any order", name: "www.example.", qtype: miekg.TypeA,
			records: []string{
				"c.cdn.example. 60 IN A 192.0.2.1", "B.cdn.example. 60 IN CNAME c.cdn.example.", "www.example. 60 IN CNAME b.CDN.example.",
			},
			learnt: map[string]string{"192.0.2.1": "www.example"},
		},
		{
			what: "aliases in a circle", name: "a.example.", qtype: miekg.TypeA,
			records: []string{"a.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME a.example.", "b.example. 60 IN A 192.0.2.1"},
			learnt:  map[string]string{"192.0.2.1": "a.example"},
		},
		{
			what: "all types", name: "www.example.", qtype: miekg.TypeANY,
			records: []string{"www.example. 60 IN A 192.0.2.1", "www.example. 60 IN MX 10 mx.example.", "www.example. 60 IN AAAA 2001:db8::1"},
			learnt:  map[string]string{"192.0.2.1": "www.example", "2001:db8::1": "www.example"},
		},
		{
			what: "another name", name: "www.example.", qtype: miekg.TypeA,
			records: []string{"bank.example. 60 IN A 192.0.2.1", "www.example. 60 IN A 192.0.2.2"},
			learnt:  map[string]string{"192.0.2.2": "www.example"}, not: "192.0.2.1",
		},
		{
			what: "beside the chain of aliases", name: "www.example.", qtype: miekg.TypeA,
			records: []string{"www.example. 60 IN CNAME a.example.", "bank.example. 60 IN CNAME b.example.", "b.example. 60 IN A 192.0.2.1"},
			not:     "192.0.2.1",
		},
		{
			what: "another type", name: "www.example.", qtype: miekg.TypeHTTPS,
			records: []string{"www.example. 60 IN A 192.0.2.1"}, not: "192.0.2.1",
		},
		{
			what: "another class", name: "www.example.", qtype: miekg.TypeA,
			records: []string{"www.example. 60 CH A 192.0.2.1"}, not: "192.0.2.1",
		},
		{
			what: "an alias of another class", name: "www.example.", qtype: miekg.TypeA,
			records: []string{"www.example. 60 CH CNAME a.example.", "a.example. 60 IN A 192.0.2.1"}, not: "192.0.2.1",
		},
		{
			what: "a block", name: "ads.example.", qtype: miekg.TypeA,
			records: []string{"ads.example. 60 IN A 0.0.0.0"}, not: "0.0.0.0",
		},
	} {
		var m dns.Memory
		read(t, &m, pack(t, response(t, tt.name, tt.qtype, tt.records...)))
		for addr, want := range tt.learnt {
			if got := namesOf(&m, addr); got != want {
				t.Errorf("%s: %s is %q, want %q", tt.what, addr, got, want)
			}
		}
		if tt.not != "" && namesOf(&m, tt.not) != "" {
			t.Errorf("%s: %s is %q", tt.what, tt.not, namesOf(&m, tt.not))
		}
	}
}

// TestLearnNothing: of messages that have the right record, and are no answer.
func TestLearnNothing(t *testing.T) {
	const record = "www.example. 60 IN A 192.0.2.1"
	for what, spoil := range map[string]func(m *miekg.Msg){
		"nothing wrong":  func(*miekg.Msg) {},
		"a query":        func(m *miekg.Msg) { m.Response = false },
		"a notification": func(m *miekg.Msg) { m.Opcode = miekg.OpcodeNotify },
		"an error":       func(m *miekg.Msg) { m.Rcode = miekg.RcodeServerFailure },
		"no question":    func(m *miekg.Msg) { m.Question = nil },
		"two questions":  func(m *miekg.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"another class": func(m *miekg.Msg) {
			m.Question[0].Qclass = miekg.ClassCHAOS
			m.Answer[0].Header().Class = miekg.ClassCHAOS
		},
		"as authority":    func(m *miekg.Msg) { m.Ns, m.Answer = m.Answer, nil },
		"as addition":     func(m *miekg.Msg) { m.Extra, m.Answer = m.Answer, nil },
		"no data":         func(m *miekg.Msg) { m.Answer[0] = &miekg.A{Hdr: *m.Answer[0].Header()} },
		"an EDNS version": func(m *miekg.Msg) { m.SetEdns0(1232, false); m.Rcode = miekg.RcodeBadVers },
	} {
		m := response(t, "www.example.", miekg.TypeA, record)
		spoil(m)
		var memory dns.Memory
		want := 0
		if what == "nothing wrong" {
			want = 1
		}
		if n := read(t, &memory, pack(t, m)); n != want || len(memory.Names(netip.MustParseAddr("192.0.2.1"))) != want {
			t.Errorf("%s: learnt %d", what, n)
		}
	}
	for _, tt := range hostile {
		var memory dns.Memory
		if n := read(t, &memory, decode(t, tt.hex)); n != 0 {
			t.Errorf("%s: learnt %d", tt.name, n)
		}
	}
}

// TestLearnDamaged: what stands before a fault is what programs read, too.
func TestLearnDamaged(t *testing.T) {
	m := response(t, "www.example.", miekg.TypeA, "www.example. 60 IN A 192.0.2.1")
	whole := pack(t, m)
	for n := range len(whole) {
		var memory dns.Memory
		if got := read(t, &memory, whole[:n]); got != 0 {
			t.Errorf("learnt %d of %d bytes of %d", got, n, len(whole))
		}
	}
	m.SetEdns0(1232, false)
	damaged := pack(t, m)
	var memory dns.Memory
	if got := read(t, &memory, damaged[:len(damaged)-1]); got != 1 {
		t.Errorf("learnt %d", got)
	}
}

func TestNamesOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m dns.Memory
		start := time.Now()
		for _, name := range []string{"a", "b", "c", "d", "b", "e"} {
			learn(t, &m, name+".example.", name+".example. 3600 IN A 192.0.2.1")
			time.Sleep(time.Second)
		}
		want := []dns.Name{
			{Name: "e.example", Learnt: start.Add(5 * time.Second)},
			{Name: "b.example", Learnt: start.Add(4 * time.Second)},
			{Name: "d.example", Learnt: start.Add(3 * time.Second)},
			{Name: "c.example", Learnt: start.Add(2 * time.Second)},
		}
		got := m.Names(netip.MustParseAddr("192.0.2.1"))
		if !slices.EqualFunc(got, want, func(a, b dns.Name) bool { return a.Name == b.Name && a.Learnt.Equal(b.Learnt) }) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestForget(t *testing.T) {
	for _, tt := range []struct {
		floor time.Duration
		ttl   string
		life  time.Duration
	}{
		{0, "0", time.Minute},
		{0, "300", 5 * time.Minute},
		{0, "4294967295", 24 * time.Hour},
		{time.Hour, "300", time.Hour},
		{time.Second, "0", time.Second},
		{48 * time.Hour, "0", 24 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := dns.Memory{Floor: tt.floor}
			learn(t, &m, "www.example.", "www.example. "+tt.ttl+" IN A 192.0.2.1")
			time.Sleep(tt.life - time.Nanosecond)
			if namesOf(&m, "192.0.2.1") == "" {
				t.Errorf("floor %v, TTL %s: forgotten before %v", tt.floor, tt.ttl, tt.life)
			}
			time.Sleep(time.Nanosecond)
			if got := namesOf(&m, "192.0.2.1"); got != "" {
				t.Errorf("floor %v, TTL %s: %s remembered for %v", tt.floor, tt.ttl, got, tt.life)
			}
		})
	}
}

// TestOldestGoes: to be looked up keeps no address, to be learnt again does.
func TestOldestGoes(t *testing.T) {
	m := dns.Memory{Addresses: 3}
	for i, addr := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"} {
		learn(t, &m, "www.example.", "www.example. 60 IN A "+addr)
		if namesOf(&m, "192.0.2.2") == "" && i > 0 {
			t.Fatalf("192.0.2.2 forgotten after %d addresses", i+1)
		}
	}
	learn(t, &m, "www.example.", "www.example. 60 IN A 192.0.2.4")
	for addr, want := range map[string]string{
		"192.0.2.1": "www.example", "192.0.2.2": "", "192.0.2.3": "www.example", "192.0.2.4": "www.example",
	} {
		if got := namesOf(&m, addr); got != want {
			t.Errorf("%s is %q, want %q", addr, got, want)
		}
	}
}

// TestAnswerOfThousands: one answer does not push out what others have taught.
func TestAnswerOfThousands(t *testing.T) {
	m := dns.Memory{Addresses: 100}
	learn(t, &m, "www.example.", "www.example. 60 IN A 192.0.2.1")
	var records []string
	for i := range 1000 {
		records = append(records, fmt.Sprintf("evil.example. 60 IN A 198.51.%d.%d", i/250, i%250))
	}
	if n := learn(t, &m, "evil.example.", records...); n < 32 || n > 64 {
		t.Errorf("learnt %d addresses of one answer", n)
	}
	if namesOf(&m, "192.0.2.1") == "" {
		t.Error("192.0.2.1 forgotten")
	}
}

// TestChanged: who keeps what is said of changes knows at each moment what
// Names says.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(map[netip.Addr][]string)
		calls := 0
		m := dns.Memory{Addresses: 2, Changed: func(addr netip.Addr, names []string) error {
			calls++
			if told[addr] = names; names == nil {
				delete(told, addr)
			}
			return nil
		}}
		sweep := func() {
			t.Helper()
			if err := m.Sweep(); err != nil {
				t.Error(err)
			}
		}
		check := func(when string, want map[string]string) {
			t.Helper()
			got := make(map[string]string)
			for addr, names := range told {
				got[addr.String()] = strings.Join(names, " ")
				if asked := namesOf(&m, addr.String()); asked != got[addr.String()] {
					t.Errorf("%s: told that %s is %q, asked %q", when, addr, got[addr.String()], asked)
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", when, got, want)
			}
		}
		learn(t, &m, "a.example.", "a.example. 100 IN A 192.0.2.1")
		learn(t, &m, "b.example.", "b.example. 200 IN A 192.0.2.1")
		check("two names", map[string]string{"192.0.2.1": "b.example a.example"})
		before := calls
		learn(t, &m, "b.example.", "b.example. 200 IN A 192.0.2.1")
		learn(t, &m, "a.example.", "a.example. 100 IN A 192.0.2.1")
		learn(t, &m, "b.example.", "b.example. 200 IN A 192.0.2.1")
		if calls != before {
			t.Error("told of what is known already")
		}
		time.Sleep(100 * time.Second)
		sweep()
		check("one has ended", map[string]string{"192.0.2.1": "b.example"})
		learn(t, &m, "c.example.", "c.example. 300 IN A 192.0.2.2")
		learn(t, &m, "d.example.", "d.example. 300 IN A 192.0.2.3")
		check("one pushed out", map[string]string{"192.0.2.2": "c.example", "192.0.2.3": "d.example"})
		time.Sleep(300 * time.Second)
		sweep()
		check("all have ended", map[string]string{})
	})
}

// TestChangedFails: it is the error of whoever has said so, and what Changed
// does not know it is told again.
func TestChangedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trouble := errors.New("no memory")
		var told [][]string
		fail := true
		m := dns.Memory{Addresses: 1, Changed: func(_ netip.Addr, names []string) error {
			if fail {
				return trouble
			}
			told = append(told, names)
			return nil
		}}
		add := func(name, addr string, ttl time.Duration) error {
			return m.Add(dns.Resolved{Name: name, Addresses: map[netip.Addr]time.Duration{netip.MustParseAddr(addr): ttl}})
		}
		check := func(when string, err error, want ...[]string) {
			t.Helper()
			if isError := errors.Is(err, trouble); isError != fail || !reflect.DeepEqual(told, want) {
				t.Errorf("%s: error %v, told %v, want %v", when, err, told, want)
			}
			told = nil
		}
		check("at first", add("a.example", "192.0.2.1", time.Minute))
		fail = false
		check("the same again", add("a.example", "192.0.2.1", time.Minute), []string{"a.example"})
		check("and again", add("a.example", "192.0.2.1", time.Minute))
		check("another", add("b.example", "192.0.2.1", time.Hour), []string{"b.example", "a.example"})
		time.Sleep(2 * time.Minute)
		fail = true
		check("one has ended", m.Sweep())
		fail = false
		check("the other again", add("b.example", "192.0.2.1", time.Hour), []string{"b.example"})
		fail = true
		check("pushed out", add("b.example", "192.0.2.2", time.Hour))
	})
}

// TestAll: what is remembered can be handed on, with the time that is left.
func TestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first, second dns.Memory
		learn(t, &first, "a.example.", "a.example. 100 IN A 192.0.2.1")
		learn(t, &first, "b.example.", "b.example. 300 IN A 192.0.2.1", "b.example. 300 IN A 192.0.2.2")
		time.Sleep(90 * time.Second)
		for _, found := range first.All() {
			if err := second.Add(found); err != nil {
				t.Error(err)
			}
		}
		if got := namesOf(&second, "192.0.2.1"); got != "b.example a.example" {
			t.Errorf("192.0.2.1 is %q", got)
		}
		time.Sleep(70 * time.Second) // a name that is told is remembered for a minute at least
		if got := namesOf(&second, "192.0.2.1") + ", " + namesOf(&second, "192.0.2.2"); got != "b.example, b.example" {
			t.Errorf("later they are %q", got)
		}
	})
}

func TestConcurrent(t *testing.T) {
	m := dns.Memory{Addresses: 4}
	var all sync.WaitGroup
	for i := range 8 {
		answer := pack(t, response(t, "www.example.", miekg.TypeA, fmt.Sprintf("www.example. 60 IN A 192.0.2.%d", i)))
		all.Go(func() {
			for range 200 {
				read(t, &m, answer)
				if got := namesOf(&m, fmt.Sprintf("192.0.2.%d", i)); got != "" && got != "www.example" {
					t.Errorf("192.0.2.%d is %q", i, got)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkLearn(b *testing.B) {
	var m dns.Memory
	answer := pack(b, response(b, "www.example.", miekg.TypeA, "www.example. 60 IN CNAME a.cdn.example.",
		"a.cdn.example. 60 IN A 192.0.2.1", "a.cdn.example. 60 IN A 192.0.2.2"))
	b.ReportAllocs()
	for b.Loop() {
		read(b, &m, answer)
	}
}
