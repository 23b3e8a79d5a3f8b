//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestSettle(t *testing.T) {
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	for _, tt := range []struct {
		kind      faultKind
		what      string
		end       float64 // the fault lasts from 1 to 2
		explained bool
	}{
		{killProxy, wasReset, 1.5, true},
		{killProxy, wasRefused, 2.5, true},
		{killProxy, wasEnded, 2.1, true},
		{starveFiles, wasReset, 1.1, true},
		{starveProxy, wasReset, 1.1, true},
		{killProxy, wasReset, 0.9, false},
		{killProxy, wasReset, 3, false},
		{killProxy, wasHung, 1.5, false},
		{killProxy, wasCorrupt, 1.5, false},
		{killProxy, wasOther, 1.5, false},
		{killDaemon, wasReset, 1.5, false},
		{stopProxy, wasReset, 1.5, false},
		{reload, wasReset, 1.5, false},
		{fillFlight, wasRefused, 1.5, false},
		{starveState, wasReset, 1.5, false},
	} {
		faults := []injected{{fault: fault{Kind: tt.kind}, From: at(1), To: at(2), Failures: map[string]int{}}}
		left := settle(faults, []failure{{What: tt.what, End: at(tt.end)}})
		if got := len(left) == 0; got != tt.explained {
			t.Errorf("%s, and a flow %s at %v s: explained %v, want %v", tt.kind, tt.what, tt.end, got, tt.explained)
		}
	}
}

// TestOrigin sends the origin what it must complain of.
func TestOrigin(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(m message) [][]byte // by connection
		want originBook
	}{
		{"fine", func(m message) [][]byte { return [][]byte{encode(m)} }, originBook{Flows: 1}},
		{"twice", func(m message) [][]byte { return [][]byte{encode(m), encode(m)} }, originBook{Flows: 1, Duplicates: 1}},
		{"elsewhere", func(m message) [][]byte {
			m.Addr = netip.AddrPortFrom(m.Addr.Addr().Next(), m.Addr.Port())
			return [][]byte{encode(m)}
		}, originBook{Flows: 1, Wrong: 1}},
		{"altered", func(m message) [][]byte {
			b := encode(m)
			b[headerSize+17] ^= 1
			return [][]byte{b}
		}, originBook{Corrupt: 1}},
		{"too much", func(m message) [][]byte { return [][]byte{append(encode(m), 0)} }, originBook{Flows: 1, Corrupt: 1}},
		{"mixed up", func(m message) [][]byte {
			first, second := m, m
			first.End, second.ID, second.Round = goesOn, 8, 1
			return [][]byte{append(encode(first), encode(second)...)}
		}, originBook{Flows: 1, Corrupt: 1}},
		{"cut", func(m message) [][]byte { return [][]byte{encode(m)[:70]} }, originBook{Cut: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &origin{}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			o.listeners = append(o.listeners, l)
			o.serving.Go(func() { o.accept(l) })
			defer o.close()
			dst := l.Addr().(*net.TCPAddr).AddrPort()
			for _, b := range tt.send(message{ID: 7, Addr: dst, Size: 100, Want: 50, End: halfClosed}) {
				say(t, dst, b)
			}
			if got, _ := o.report(); got != tt.want {
				t.Errorf("the origin found %+v, want %+v", got, tt.want)
			}
		})
	}
}

func encode(m message) []byte {
	var b bytes.Buffer
	send(&b, m, nil)
	return b.Bytes()
}

// say sends bytes and waits until the origin has closed the connection.
func say(t *testing.T, dst netip.AddrPort, b []byte) {
	t.Helper()
	c, err := net.Dial("tcp", dst.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(b)
	c.(*net.TCPConn).CloseWrite()
	for r := bufio.NewReader(c); err == nil; {
		_, err = r.ReadByte()
	}
}

func TestMessage(t *testing.T) {
	for _, size := range []uint32{0, 1, atOnce, atOnce + 1, 5*atOnce + 3} {
		m := message{ID: 1<<40 + 5, Round: 3, End: byOrigin, Verdict: duplicate, Addr: netip.MustParseAddrPort("192.0.2.3:8001"), Size: size, Want: 9}
		got, err := receive(bufio.NewReader(bytes.NewReader(encode(m))))
		if err != nil || got != m {
			t.Errorf("%+v is read as %+v, %v", m, got, err)
		}
		wrong := encode(m)
		wrong[len(wrong)-5] ^= 0x80
		if _, err := receive(bufio.NewReader(bytes.NewReader(wrong))); !errors.Is(err, errCorrupt) {
			t.Errorf("an altered message of %d bytes: %v", size, err)
		}
	}
}

func TestGrew(t *testing.T) {
	for _, tt := range []struct {
		megabytes []uint64
		want      bool
	}{
		{[]uint64{40, 60, 45, 62, 41, 63, 44, 61}, false},
		{[]uint64{40, 40, 40, 40, 60, 80, 100, 100}, true},
		{[]uint64{40, 0, 60, 40, 0, 70, 40, 0}, false},
		{[]uint64{20, 22, 24, 26, 28, 30, 32, 34}, false}, // within the margin
	} {
		var samples []sample
		for _, mb := range tt.megabytes {
			samples = append(samples, sample{Maps: mb << 20})
		}
		if got := grew(samples, func(s *sample) uint64 { return s.Maps }); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.megabytes, got, tt.want)
		}
	}
}
