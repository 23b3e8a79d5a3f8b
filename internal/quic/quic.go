// Package quic reads what anybody on the way can read of a QUIC connection:
// the TLS ClientHello in the client's Initial packets. Their keys follow from
// the packets themselves.
//
// It knows QUIC version 1 (RFC 9000, RFC 9001) and version 2 (RFC 9369).
package quic

import (
	"errors"
	"fmt"
)

// Version of a [Hello].
const (
	Version1 uint32 = 1
	Version2 uint32 = 0x6b3343cf
)

// ErrNotQUIC says that a datagram begins no QUIC connection that this package
// can read: it does not start with a whole packet that has the long header of
// a known version.
var ErrNotQUIC = errors.New("datagram is no QUIC of a known version")

const (
	// A post-quantum hello takes two or three datagrams. The rest is for what
	// is sent again, and for a Retry.
	maxDatagrams = 16
	maxCrypto    = 64 << 10 // also the longest ClientHello of crypto/tls

	// A server begins no connection with a smaller datagram. Some go on with one.
	minInitialDatagram = 1200
)

// Hello is what a client says when a connection begins. The strings are the
// client's: they may hold any bytes.
type Hello struct {
	// ServerName is the name that the client sends in the clear, empty if it
	// sends none. With Encrypted Client Hello it is the outer one, of whoever
	// holds the keys, and the server that is meant stays unknown. Nor can it be
	// told that this is so: clients also send the extension without meaning it.
	ServerName string

	ALPN    []string // as offered, with what clients mix in to be ignored (RFC 8701)
	Version uint32   // of QUIC, in which the client has sent this
}

// Sniffer reads the datagrams that a client sends when it begins a connection.
// Its zero value is ready to use. It is not safe for concurrent use.
//
// It ends with the first hello. Clients may begin more connections from the
// same port to the same server, under other names: see [Flow].
type Sniffer struct {
	datagrams int // since the first that was QUIC
	current   *attempt
	hello     *Hello
	err       error
}

// Add reads the next datagram, which it neither changes nor keeps. Their order
// does not matter, and those that can not be read do not either. It returns
//
//   - the hello, once it is complete, then and ever after;
//   - nil and nil if more is needed;
//   - [ErrNotQUIC] as long as no datagram was QUIC: the next one still may be;
//   - any other error, then and ever after, if no hello can be expected: what a
//     server would refuse as well, or what is larger than any client's.
func (s *Sniffer) Add(datagram []byte) (*Hello, error) {
	if s.hello != nil || s.err != nil {
		return s.hello, s.err
	}
	if _, _, ok := cutPacket(datagram); !ok && s.datagrams == 0 {
		return nil, ErrNotQUIC
	}
	s.datagrams++
	s.hello, s.err = s.read(datagram)
	if s.hello == nil && s.err == nil && s.datagrams == maxDatagrams {
		s.err = fmt.Errorf("no complete ClientHello in %d datagrams", maxDatagrams)
	}
	if s.err != nil && s.current != nil {
		s.current.crypto = stream{} // the keys tell what else belongs to it
	}
	return s.hello, s.err
}

// again reads a datagram that comes after the hello. It has to agree with it:
// the server may have dropped what the hello was read from, or have forgotten the
// connection, and read another one from this.
func (s *Sniffer) again(datagram []byte) error {
	for p := range initials(datagram) {
		frames, ok := s.current.open(p)
		if !ok {
			continue
		}
		if err := s.current.crypto.readFrames(frames); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sniffer) read(datagram []byte) (*Hello, error) {
	var begun *attempt // by this datagram, if it does not belong to the current one
	for p := range initials(datagram) {
		frames, ok := s.current.open(p)
		if !ok {
			if len(datagram) < minInitialDatagram {
				continue
			}
			if begun == nil {
				var err error
				if begun, err = newAttempt(p); err != nil {
					return nil, err
				}
			}
			if frames, ok = begun.open(p); !ok {
				continue
			}
			s.current = begun
		}
		if err := s.current.crypto.readFrames(frames); err != nil {
			return nil, err
		}
	}
	if s.current == nil {
		return nil, nil
	}
	return s.current.hello()
}

// attempt is a connection as the client begins it. A Retry, or a version that
// the server does not speak, makes the client begin again, with other keys and
// with its hello from the start.
type attempt struct {
	version uint32
	keys    *keys
	crypto  stream
}

// newAttempt begins with a packet whose Destination Connection ID the keys of
// all its packets follow from. Later ones have an ID that the server chose.
func newAttempt(p packet) (*attempt, error) {
	k, err := newKeys(p.version, p.dcid, clientSide)
	if err != nil {
		return nil, fmt.Errorf("derive keys from connection ID %x: %w", p.dcid, err)
	}
	return &attempt{version: p.version.number, keys: k}, nil
}

func (a *attempt) open(p packet) (frames []byte, ok bool) {
	if a == nil || a.version != p.version.number {
		return nil, false
	}
	return a.keys.open(p)
}

// hello returns nil if parts are missing.
func (a *attempt) hello() (*Hello, error) {
	message, err := a.crypto.clientHello()
	if message == nil {
		return nil, err
	}
	h, err := parseHello(message)
	if err != nil {
		return nil, err
	}
	a.crypto.keep(message)
	h.Version = a.version
	return h, nil
}
