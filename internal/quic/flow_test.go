package quic_test

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	quicgo "github.com/quic-go/quic-go"

	"github.com/waybill-net/waybill/internal/quic"
)

func clientConfig(name string, curve tls.CurveID) *tls.Config {
	return &tls.Config{ServerName: name, NextProtos: []string{"h3"}, CurvePreferences: []tls.CurveID{curve}}
}

// TestFlow: the hellos of several connections, whose datagrams are mixed, are
// told apart, and what is sent again belongs to the same.
func TestFlow(t *testing.T) {
	t.Parallel()
	a := flight(t, quicgo.Version1, clientConfig("a.example", tls.X25519MLKEM768), 2)
	b := flight(t, quicgo.Version2, clientConfig("b.example", tls.X25519MLKEM768), 2)
	short := flight(t, quicgo.Version1, clientConfig("c.example", tls.X25519), 1)
	var f quic.Flow
	first, second := f.Read(a[0]), f.Read(b[1])
	if first == nil || second == nil || first == second || first.Hello != nil || second.Hello != nil {
		t.Fatalf("begun: %+v and %+v", first, second)
	}
	for _, step := range []struct {
		datagram []byte
		want     *quic.Connection
		name     string
	}{
		{b[1], second, ""}, {a[0], first, ""}, {b[0], second, "b.example"}, {a[1], first, "a.example"}, {a[0], first, "a.example"},
	} {
		got := f.Read(step.datagram)
		if got != step.want {
			t.Fatal("another connection")
		}
		if got.Err != nil || (got.Hello == nil) != (step.name == "") || got.Hello != nil && got.Hello.ServerName != step.name {
			t.Errorf("got %+v, %v, want name %q", got.Hello, got.Err, step.name)
		}
	}
	if c := f.Read(short[0]); c == nil || c == first || c == second || c.Hello == nil || c.Hello.ServerName != "c.example" {
		t.Errorf("third: %+v", c)
	}
	for _, d := range [][]byte{nil, {0x40, 1, 2, 3}, []byte("GET / HTTP/1.1"), short[0][:1100], {0xff}} {
		if c := f.Read(d); c != nil {
			t.Errorf("%.10x belongs to %+v", d, c)
		}
	}
}

// TestFlowFull: a client that begins more than any does is stopped, and none
// that it has begun is forgotten.
func TestFlowFull(t *testing.T) {
	t.Parallel()
	var f quic.Flow
	kept := flight(t, quicgo.Version1, clientConfig("kept.example", tls.X25519MLKEM768), 2)
	first := f.Read(kept[0])
	stopped := 0
	for range 40 {
		parts := flight(t, quicgo.Version1, clientConfig("x.example", tls.X25519MLKEM768), 2)
		if c := f.Read(parts[0]); c.Err != nil {
			stopped++
		}
	}
	if stopped != 40-15 {
		t.Errorf("%d of 40 stopped", stopped)
	}
	if c := f.Read(kept[1]); c != first || c.Hello == nil {
		t.Errorf("the first was forgotten: %+v", c)
	}
}

// TestFlowForgets: of many connections that were let go on the oldest go, of
// those that were barred the last.
func TestFlowForgets(t *testing.T) {
	t.Parallel()
	var f quic.Flow
	barred := flight(t, quicgo.Version1, clientConfig("barred.example", tls.X25519), 1)[0]
	c := f.Read(barred)
	c.Barred = true
	for range 50 {
		f.Read(flight(t, quicgo.Version1, clientConfig("x.example", tls.X25519), 1)[0])
	}
	if f.Read(barred) != c {
		t.Error("the barred one was forgotten")
	}
}

// TestFlowFullOfBarred: a server may have a part of a hello that was barred, and
// wait for the rest: it is not forgotten meanwhile, however many there are.
func TestFlowFullOfBarred(t *testing.T) {
	t.Parallel()
	var flights [][][]byte
	for range 33 {
		flights = append(flights, flight(t, quicgo.Version1, clientConfig("barred.example", tls.X25519MLKEM768), 2))
	}
	synctest.Test(t, func(t *testing.T) {
		var f quic.Flow
		var barred []*quic.Connection
		for _, parts := range flights[:32] {
			f.Read(parts[0])
			c := f.Read(parts[1])
			c.Barred = true
			barred = append(barred, c)
			time.Sleep(time.Millisecond)
		}
		if c := f.Read(flights[32][0]); c.Err == nil {
			t.Error("there was room for one more")
		}
		for i, c := range barred {
			if f.Read(flights[i][1]) != c {
				t.Fatalf("number %d was forgotten", i)
			}
		}
		time.Sleep(31 * time.Second)
		if c := f.Read(flights[32][0]); c.Err != nil {
			t.Errorf("later: %v", c.Err)
		}
	})
}

// TestRefuse: clients take the refusal for what it says, in both versions.
func TestRefuse(t *testing.T) {
	t.Parallel()
	for _, version := range []quicgo.Version{quicgo.Version1, quicgo.Version2} {
		server := record(t)
		go func() {
			var f quic.Flow
			buf := make([]byte, 2048)
			for {
				n, from, err := server.PacketConn.ReadFrom(buf)
				if err != nil {
					return
				}
				if c := f.Read(buf[:n]); c != nil && c.Hello != nil {
					answer, err := c.Refuse(c.Hello.ServerName + " is blocked")
					if err != nil {
						t.Error(err)
					}
					server.WriteTo(answer, from)
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		config := clientConfig("ads.example", tls.X25519MLKEM768)
		client := &quicgo.Transport{Conn: record(t).PacketConn} // with connection IDs, unlike DialAddr
		defer client.Close()
		_, err := client.Dial(ctx, server.LocalAddr(), config, &quicgo.Config{Versions: []quicgo.Version{version}})
		var refused *quicgo.TransportError
		if !errors.As(err, &refused) || !refused.Remote || refused.ErrorCode != quicgo.ConnectionRefused || refused.ErrorMessage != "ads.example is blocked" {
			t.Errorf("version %v: got %v", version, err)
		}
	}
}

// TestReplyWithoutID: of a client that chooses no IDs the server answers the
// connection that was begun last. The refusal of another has to keep the ID
// that its server chose.
func TestReplyWithoutID(t *testing.T) {
	t.Parallel()
	var f quic.Flow
	reply := func(scid string) { // with an Initial packet
		header := append([]byte{0xc0, 0, 0, 0, 1, 0, byte(len(scid))}, scid...)
		f.Reply(append(append(header, 0, 20), make([]byte, 20)...))
	}
	refusedAs := func(c *quic.Connection) string {
		refusal, err := c.Refuse("")
		if err != nil {
			t.Fatal(err)
		}
		return string(refusal[7:][:refusal[6]])
	}
	older := f.Read(flight(t, quicgo.Version1, clientConfig("a.example", tls.X25519), 1)[0])
	reply("first")
	newer := f.Read(flight(t, quicgo.Version1, clientConfig("b.example", tls.X25519), 1)[0])
	reply("second")
	if o, n := refusedAs(older), refusedAs(newer); o != "first" || n != "second" {
		t.Errorf("refused as %q and %q", o, n)
	}
}

// TestRefuseLong: a reason that does not fit is cut.
func TestRefuseLong(t *testing.T) {
	t.Parallel()
	var f quic.Flow
	c := f.Read(sample(t, "rfc9001-a.2"))
	short, err := c.Refuse("")
	if err != nil {
		t.Fatal(err)
	}
	long, err := c.Refuse(string(slices.Repeat([]byte("x"), 1000)))
	if err != nil || len(long) != len(short)+63 {
		t.Errorf("%d bytes, %v; %d without a reason", len(long), err, len(short))
	}
}
