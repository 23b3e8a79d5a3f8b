package inspect

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"slices"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

// flight is the first two datagrams of a client: its hello takes both.
func flight(t *testing.T, name string) (datagrams [2][]byte) {
	t.Helper()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		quic.DialAddr(ctx, server.LocalAddr().String(), &tls.Config{
			ServerName: name, NextProtos: []string{"h3"}, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		}, nil)
	}()
	defer func() { <-done }()
	defer cancel()
	server.SetReadDeadline(time.Now().Add(10 * time.Second))
	for i := range datagrams {
		buf := make([]byte, 2048)
		n, err := server.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		datagrams[i] = buf[:n]
	}
	return datagrams
}

// TestHold: no part of a hello goes on before its name is known. Then all of it
// does, in order and with its marks, or nothing. Nobody waits where nothing is
// blocked.
func TestHold(t *testing.T) {
	t.Parallel()
	passed, other, blocked := flight(t, "www.example"), flight(t, "other.example"), flight(t, "ads.example")
	damaged := bytes.Clone(passed[1])
	damaged[len(damaged)-1] ^= 1
	type sent struct {
		data []byte
		tos  uint8
	}
	for _, tt := range []struct {
		name  string
		rules bool
		come  [][]byte
		want  [][]byte
		held  int // in the end
	}{
		{"passed", true, [][]byte{passed[0], passed[1]}, [][]byte{passed[0], passed[1]}, 0},
		{"passed, out of order", true, [][]byte{passed[1], passed[0]}, [][]byte{passed[1], passed[0]}, 0},
		{"not complete", true, [][]byte{passed[0], passed[0], damaged}, nil, 3},
		{"blocked", true, [][]byte{blocked[0], blocked[1], blocked[0]}, nil, 0},
		{
			"mixed", true,
			[][]byte{blocked[0], passed[0], other[1], passed[1], blocked[1], other[0]},
			[][]byte{passed[0], passed[1], other[1], other[0]},
			0,
		},
		{"in error", true, slices.Repeat(passed[:1], 16), nil, 0},
		{"no rules", false, [][]byte{blocked[0], passed[0]}, [][]byte{blocked[0], passed[0]}, 0},
	} {
		s := &service{ctx: t.Context()}
		if tt.rules {
			if err := s.Rules.Add("ads.example"); err != nil {
				t.Fatal(err)
			}
		}
		var got []sent
		send := func(data []byte, tos uint8) { got = append(got, sent{bytes.Clone(data), tos}) }
		p := &quicPackets{service: s, send: send}
		for i, datagram := range tt.come {
			lent := bytes.Clone(datagram)
			if forward, more, _ := p.ToServer(lent, uint8(i)); forward {
				send(lent, uint8(i))
			} else if !more {
				t.Errorf("%s: one was kept back, and no more are looked at", tt.name)
			}
			clear(lent) // the caller's again
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: %d datagrams went on, want %d", tt.name, len(got), len(tt.want))
			continue
		}
		for i, d := range got {
			if !bytes.Equal(d.data, tt.want[i]) || !bytes.Equal(tt.come[d.tos], d.data) {
				t.Errorf("%s: number %d is not what was to go on, or its mark is of another", tt.name, i)
			}
		}
		if n := len(p.held.datagrams); n != tt.held || (p.held.bytes > 0) != (n > 0) {
			t.Errorf("%s: %d with %d bytes are held in the end", tt.name, n, p.held.bytes)
		}
	}
}

// TestHoldBound: what a flow holds is bounded, however long its datagrams are.
func TestHoldBound(t *testing.T) {
	t.Parallel()
	s := &service{ctx: t.Context()}
	if err := s.Rules.Add("ads.example"); err != nil {
		t.Fatal(err)
	}
	p := &quicPackets{service: s}
	for range 10 {
		p.ToServer(append(flight(t, "www.example")[0], make([]byte, 30000)...), 0)
	}
	if n := len(p.held.datagrams); n != 2 || p.held.bytes > maxHeld {
		t.Errorf("%d datagrams with %d bytes are held", n, p.held.bytes)
	}
}

// TestQUICToResolver: one flow to port 53 may carry QUIC and DNS, and rules
// count for both.
func TestQUICToResolver(t *testing.T) {
	t.Parallel()
	s := &service{ctx: t.Context()}
	if err := s.Rules.Add("ads.example"); err != nil {
		t.Fatal(err)
	}
	sent := 0
	p := &dnsPackets{dnsTalk{service: s}, quicPackets{service: s, send: func([]byte, uint8) { sent++ }}}
	passed, blocked := flight(t, "www.example"), flight(t, "ads.example")
	established := append([]byte{0x45}, make([]byte, 40)...)
	question := func(name string) []byte {
		b, err := new(miekg.Msg).SetQuestion(name, miekg.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for i, step := range []struct {
		datagram []byte
		forward  bool
		sent     int // of those that were held
		answered bool
	}{
		{established, false, 0, true}, // nothing has begun
		{question("ads.example."), false, 0, true},
		{passed[0], false, 0, false},
		{passed[1], true, 1, false},
		{established, true, 1, false},
		{blocked[0], false, 1, false},
		{blocked[1], false, 1, true},
		{question("www.example."), true, 1, false},
		{question("ads.example."), false, 1, true},
	} {
		forward, more, answer := p.ToServer(step.datagram, 0)
		if forward != step.forward || !more || sent != step.sent || (answer != nil) != step.answered {
			t.Errorf("step %d: forward=%t, more=%t, %d sent, answer of %d bytes", i, forward, more, sent, len(answer))
		}
	}
}
