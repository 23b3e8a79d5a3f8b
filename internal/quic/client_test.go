package quic_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// recorder keeps what clients send to a socket.
type recorder struct {
	net.PacketConn
	datagrams chan []byte
}

func record(t *testing.T) *recorder {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &recorder{c, make(chan []byte, 64)}
}

func (r *recorder) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := r.PacketConn.ReadFrom(b)
	if err == nil {
		select {
		case r.datagrams <- bytes.Clone(b[:n]):
		default:
		}
	}
	return n, from, err
}

func (r *recorder) next(t *testing.T) []byte {
	t.Helper()
	select {
	case d := <-r.datagrams:
		return d
	case <-time.After(10 * time.Second):
		t.Fatal("client sends nothing")
		return nil
	}
}

// dial has a client of quic-go try until the test ends.
func dial(t *testing.T, to *recorder, version quicgo.Version, config *tls.Config) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		quicgo.DialAddr(ctx, to.LocalAddr().String(), config, &quicgo.Config{Versions: []quicgo.Version{version}})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// flight is the first n datagrams of a client whose server is silent.
func flight(t *testing.T, version quicgo.Version, config *tls.Config, n int) [][]byte {
	t.Helper()
	r := record(t)
	dial(t, r, version, config)
	var datagrams [][]byte
	buf := make([]byte, 2048)
	for range n {
		r.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, _, err := r.ReadFrom(buf); err != nil {
			t.Fatal(err)
		}
		datagrams = append(datagrams, r.next(t))
	}
	return datagrams
}

// retry answers a client of version 1 with a Retry, and then no more than a
// server that has no certificate.
func retry(t *testing.T, config *tls.Config) *recorder {
	t.Helper()
	r := record(t)
	server := &quicgo.Transport{Conn: r, VerifySourceAddress: func(net.Addr) bool { return true }}
	l, err := server.Listen(&tls.Config{NextProtos: config.NextProtos}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		server.Close()
	})
	dial(t, r, quicgo.Version1, config)
	return r
}

func connectionID(datagram []byte) []byte { return datagram[6:][:datagram[5]] }
