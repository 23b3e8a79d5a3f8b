package quic_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	quicgo "github.com/quic-go/quic-go"

	"github.com/waybill-net/waybill/internal/quic"
)

var sampleRead = &quic.Hello{ServerName: "example.com", ALPN: []string{"alpn"}, Version: quic.Version1}

// add gives a Sniffer datagrams, of which only the last may bring an answer.
func add(t *testing.T, s *quic.Sniffer, datagrams ...[]byte) (*quic.Hello, error) {
	t.Helper()
	for i, d := range datagrams {
		before := bytes.Clone(d)
		hello, err := s.Add(d)
		if !bytes.Equal(d, before) {
			t.Fatalf("datagram %d was changed", i)
		}
		if i == len(datagrams)-1 {
			return hello, err
		}
		if hello != nil || err != nil {
			t.Fatalf("after datagram %d of %d: %v, %v", i+1, len(datagrams), hello, err)
		}
	}
	return nil, nil
}

func wantHello(t *testing.T, want *quic.Hello, datagrams ...[]byte) {
	t.Helper()
	var s quic.Sniffer
	got, err := add(t, &s, datagrams...)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func wantNothing(t *testing.T, s *quic.Sniffer, datagrams ...[]byte) {
	t.Helper()
	if hello, err := add(t, s, datagrams...); hello != nil || err != nil {
		t.Fatalf("got %+v, %v, want that more is needed", hello, err)
	}
}

// TestSamples: the client Initial packets of the RFCs' appendices.
func TestSamples(t *testing.T) {
	t.Parallel()
	wantHello(t, sampleRead, sample(t, "rfc9001-a.2"))
	want := *sampleRead
	want.Version = quic.Version2
	wantHello(t, &want, sample(t, "rfc9369-a.2"))
}

func manyProtocols() []string {
	protocols := []string{"h3"}
	for i := range 100 {
		protocols = append(protocols, fmt.Sprintf("protocol-number-%03d-of-those", i))
	}
	return protocols
}

// TestClients: what quic-go's client sends, in every order.
func TestClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		curve     tls.CurveID
		protocols []string
		datagrams int
	}{
		{"short", tls.X25519, []string{"h3", "hq-interop"}, 1},
		{"post-quantum", tls.X25519MLKEM768, []string{"h3"}, 2},
		{"many protocols", tls.X25519, manyProtocols(), 3},
	} {
		for _, version := range []quicgo.Version{quicgo.Version1, quicgo.Version2} {
			t.Run(fmt.Sprintf("%s, %v", tt.name, version), func(t *testing.T) {
				t.Parallel()
				config := &tls.Config{
					ServerName: "www.example.org", NextProtos: tt.protocols, CurvePreferences: []tls.CurveID{tt.curve},
				}
				want := &quic.Hello{ServerName: config.ServerName, ALPN: tt.protocols, Version: uint32(version)}
				datagrams := flight(t, version, config, tt.datagrams)
				shuffle := rand.New(rand.NewPCG(1, 2))
				for range 12 {
					wantHello(t, want, datagrams...)
					shuffle.Shuffle(len(datagrams), func(i, j int) { datagrams[i], datagrams[j] = datagrams[j], datagrams[i] })
				}
			})
		}
	}
}

// TestEncryptedClientHello: the name in the clear is not the one that is meant.
func TestEncryptedClientHello(t *testing.T) {
	t.Parallel()
	config := &tls.Config{
		ServerName: "secret.example.org", NextProtos: []string{"h3"}, CurvePreferences: []tls.CurveID{tls.X25519},
		MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echConfigs("public.example.org"),
	}
	want := &quic.Hello{ServerName: "public.example.org", ALPN: []string{"h3"}, Version: quic.Version1}
	wantHello(t, want, flight(t, quicgo.Version1, config, 1)...)
}

// echConfigs has one configuration (RFC 9849, section 4), whose key nobody
// holds.
func echConfigs(publicName string) []byte {
	key := [32]byte{9}                                                   // any is a point
	contents := append([]byte{1, 0, 0x20, 0, byte(len(key))}, key[:]...) // X25519
	contents = append(contents, 0, 4, 0, 1, 0, 1)                        // HKDF-SHA256, AES-128-GCM
	contents = append(contents, 0, byte(len(publicName)))
	contents = append(contents, publicName...)
	contents = append(contents, 0, 0)
	config := append([]byte{0xfe, 0x0d, 0, byte(len(contents))}, contents...)
	return append([]byte{0, byte(len(config))}, config...)
}

func postQuantum() *tls.Config {
	return &tls.Config{
		ServerName: "www.example.org", NextProtos: []string{"h3"}, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
	}
}

// TestRetry: after a Retry the client begins again with another connection ID,
// so what was read before does not count.
func TestRetry(t *testing.T) {
	t.Parallel()
	config := postQuantum()
	want := &quic.Hello{ServerName: config.ServerName, ALPN: config.NextProtos, Version: quic.Version1}
	var (
		client = retry(t, config)
		first  = client.next(t)
		s      quic.Sniffer
	)
	wantNothing(t, &s, first)
	for range 10 {
		d := client.next(t)
		if bytes.Equal(connectionID(d), connectionID(first)) {
			continue // without it the hello before the Retry stays incomplete
		}
		got, err := s.Add(d)
		if got == nil && err == nil {
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		return
	}
	t.Error("no hello after the Retry")
}

// TestImperfectWay: what happens to datagrams before they come.
func TestImperfectWay(t *testing.T) {
	t.Parallel()
	config := postQuantum()
	datagrams := flight(t, quicgo.Version1, config, 2)
	first, second := datagrams[0], datagrams[1]
	want := &quic.Hello{ServerName: config.ServerName, ALPN: config.NextProtos, Version: quic.Version1}

	t.Run("duplicates", func(t *testing.T) {
		wantHello(t, want, first, first, first, second)
		wantHello(t, want, second, second, first)
	})
	t.Run("the first is sent again", func(t *testing.T) {
		wantHello(t, want, second, second, first)
	})
	t.Run("others in between", func(t *testing.T) {
		broken := bytes.Clone(second)
		broken[len(broken)-1]++
		shortHeader := bytes.Repeat([]byte{0x40}, 1200)
		wantHello(t, want, first, nil, []byte("garbage"), shortHeader, broken, first[:100], second)
	})
	t.Run("a broken one first", func(t *testing.T) {
		broken := bytes.Clone(first)
		broken[100]++
		wantHello(t, want, broken, first, second)
	})
	t.Run("the first is lost", func(t *testing.T) {
		var s quic.Sniffer
		for range 15 {
			wantNothing(t, &s, second)
		}
		hello, err := s.Add(second)
		if hello != nil || err == nil || errors.Is(err, quic.ErrNotQUIC) {
			t.Fatalf("got %v, %v, want an error", hello, err)
		}
		if hello, again := s.Add(first); hello != nil || again != err {
			t.Errorf("later: %v, %v, want the same error", hello, again)
		}
	})
}

// TestAnswerStays: who asks again is told again.
func TestAnswerStays(t *testing.T) {
	t.Parallel()
	var s quic.Sniffer
	for _, d := range [][]byte{sample(t, "rfc9001-a.2"), nil, []byte("garbage")} {
		if got, err := s.Add(d); err != nil || !reflect.DeepEqual(got, sampleRead) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

// TestFrames: a hello in frames as clients cut, shuffle and coalesce them.
func TestFrames(t *testing.T) {
	t.Parallel()
	var (
		hello     = sampleHello
		end       = len(hello)
		head      = crypto(hello, 0, 80)
		middle    = crypto(hello, 80, 81)
		tail      = crypto(hello, 81, end)
		ping      = []byte{1}
		ack       = []byte{2, 0x40, 0x50, 0, 2, 1, 3, 3, 0, 0}
		ackECN    = []byte{3, 7, 0, 0, 1, 4, 5, 6}
		goodbye   = append([]byte{0x1c, 0, 6, 3}, "bye"...)
		singles   [][]byte
		handshake = []byte{0xe0, 0, 0, 0, 1, 8, 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08, 0, 5, 1, 2, 3, 4, 5}
	)
	for i := range hello {
		singles = append(singles, crypto(hello, i, i+1))
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(end, func(i, j int) { singles[i], singles[j] = singles[j], singles[i] })

	for _, tt := range []struct {
		name      string
		datagrams [][]byte
	}{
		{"one", [][]byte{sealed(crypto(hello, 0, end))}},
		{"shuffled", [][]byte{sealed(slices.Concat(tail, ping, head, make([]byte, 50), middle))}},
		{"single bytes", [][]byte{sealed(slices.Concat(singles...))}},
		{"overlapping", [][]byte{sealed(slices.Concat(crypto(hello, 10, end), crypto(hello, 0, 100), tail))}},
		{"empty", [][]byte{sealed(slices.Concat(crypto(hello, 100, 100), crypto(hello, 0, end)))}},
		{"more handshake after it", [][]byte{sealed(crypto(append(hello[:end:end], 1, 2, 3), 0, end+3))}},
		{"other frames", [][]byte{sealed(slices.Concat(ack, head, ackECN, middle, goodbye, tail))}},
		{"coalesced", [][]byte{sealed(tail, middle, head)}},
		{"coalesced with others", [][]byte{slices.Concat(sealed(tail), handshake, sealed(head, middle), []byte("the end"))}},
		{"two datagrams", [][]byte{sealed(tail), sealed(ack, middle, head)}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantHello(t, sampleRead, tt.datagrams...) })
	}
}

// TestPacketNumbers: they are sent without their first bytes.
func TestPacketNumbers(t *testing.T) {
	t.Parallel()
	packet := func(number uint64, length, from, to int) []byte {
		h := sampleHeader
		h.first |= byte(length - 1)
		h.number = number
		return h.seal(slices.Concat(crypto(sampleHello, from, to), make([]byte, 1200)))
	}
	end := len(sampleHello)
	wantHello(t, sampleRead, packet(0x1f0, 2, 0, 50), packet(0x1f1, 1, 50, 100), packet(0x205, 1, 100, 150), packet(0x1fe, 1, 150, end))
	wantHello(t, sampleRead, packet(0xfe_fffe, 3, 0, 50), packet(0xff_0001, 2, 50, 100), packet(0xff_0102, 4, 100, end))
}

// TestServerWouldIgnore: a part of a hello that no server reads is none.
func TestServerWouldIgnore(t *testing.T) {
	t.Parallel()
	var (
		end  = len(sampleHello)
		head = sealed(crypto(sampleHello, 0, 100))
		tail = crypto(sampleHello, 100, end)
		long = slices.Concat(tail, make([]byte, 1200))

		otherID, zeroRTT, otherVersion = sampleHeader, sampleHeader, sampleHeader
	)
	otherID.id = []byte("other ID")
	zeroRTT.first, zeroRTT.noToken = 0xd0, true
	otherVersion.first, otherVersion.version = 0xd0, quic.Version2
	for _, tt := range []struct {
		name     string
		datagram []byte
	}{
		{"another ID in one datagram", slices.Concat(otherID.seal(nil), sealed(tail))},
		{"another packet type", zeroRTT.seal(long)},
		{"keys of another version", otherVersion.seal(long)},
		{"too short to be protected", slices.Concat([]byte{0xc0, 0, 0, 0, 1, 0, 0, 0, 1, 0}, make([]byte, 1200))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s quic.Sniffer
			wantNothing(t, &s, head, tt.datagram)
			if got, err := s.Add(sealed(tail)); err != nil || !reflect.DeepEqual(got, sampleRead) {
				t.Errorf("after it: %+v, %v", got, err)
			}
		})
	}
}

// TestSmallDatagram: servers begin no connection with one, but go on with one.
func TestSmallDatagram(t *testing.T) {
	t.Parallel()
	end := len(sampleHello)
	head, tail := crypto(sampleHello, 0, 100), crypto(sampleHello, 100, end)
	wantHello(t, sampleRead, sealed(head), sampleHeader.seal(tail))
	var s quic.Sniffer
	wantNothing(t, &s, sampleHeader.seal(head), sealed(tail))
}

func TestNotQUIC(t *testing.T) {
	t.Parallel()
	initial := sample(t, "rfc9001-a.2")
	with := func(at int, value byte) []byte {
		d := bytes.Clone(initial)
		d[at] = value
		return d
	}
	longSource := slices.Insert(with(14, 21), 15, make([]byte, 21)...)
	longID := slices.Insert(with(5, 21), 14, make([]byte, 13)...)
	for _, tt := range []struct {
		name     string
		datagram []byte
	}{
		{"empty", nil},
		{"DNS", []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01")},
		{"text", []byte(strings.Repeat("hello ", 200))},
		{"zeros", make([]byte, 1200)},
		{"ones", bytes.Repeat([]byte{0xff}, 1200)},
		{"short header", with(0, 0x40)},
		{"version negotiation", with(4, 0)},
		{"unknown version", with(1, 0xff)},
		{"long ID", longID},
		{"long source ID", longSource},
		{"cut header", initial[:12]},
		{"cut packet", initial[:len(initial)-1]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s quic.Sniffer
			for range 20 {
				if hello, err := s.Add(tt.datagram); hello != nil || err != quic.ErrNotQUIC {
					t.Fatalf("got %v, %v, want ErrNotQUIC", hello, err)
				}
			}
			if hello, err := s.Add(initial); err != nil || !reflect.DeepEqual(hello, sampleRead) {
				t.Errorf("QUIC after it: %v, %v", hello, err)
			}
		})
	}
}

// TestHostile: what no server would go on with ends the reading.
func TestHostile(t *testing.T) {
	t.Parallel()
	hello, end := sampleHello, len(sampleHello)
	whole := crypto(hello, 0, end)
	other := bytes.Clone(hello)
	other[60]++
	notHello := bytes.Clone(hello)
	notHello[0] = 2
	broken := bytes.Clone(hello)
	broken[38] = 0xff // the length of the session ID
	for _, tt := range []struct {
		name      string
		datagrams [][]byte
		want      string
	}{
		{"two hellos", [][]byte{sealed(crypto(other, 50, end)), sealed(whole)}, "two values for byte 60"},
		{"another message", [][]byte{sealed(crypto(notHello, 0, end))}, "message of type 2, not with a ClientHello"},
		{"not a hello", [][]byte{sealed(crypto(broken, 0, end))}, "parse ClientHello"},
		{"endless hello", [][]byte{sealed(crypto([]byte{1, 1, 0, 0}, 0, 4))}, "ClientHello of 65540 bytes"},
		{"endless handshake", [][]byte{sealed(append([]byte{6, 0x80, 1, 0, 0, 1}, 7))}, "more than 65536 bytes"},
		{"far away", [][]byte{sealed(append([]byte{6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 7))}, "more than 65536 bytes"},
		{"stream frame", [][]byte{sealed(append(bytes.Clone(whole), 8, 0, 0))}, "frame of type 0x8"},
		{"cut frame", [][]byte{sealed(append(bytes.Clone(whole), 6, 0, 0x7f, 0xff))}, "cut off"},
		{"endless ACK", [][]byte{sealed(append(bytes.Clone(whole), 2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))}, "cut off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s quic.Sniffer
			got, err := add(t, &s, tt.datagrams...)
			if got != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %+v, %v, want an error with %q", got, err, tt.want)
			}
			if got, again := s.Add(sealed(whole)); got != nil || again != err {
				t.Errorf("later: %v, %v, want the same error", got, again)
			}
		})
	}
}
