package quic

import (
	"bytes"
	"errors"
	"fmt"
)

// Frames that Initial packets may have.
const (
	framePadding         = 0x00
	framePing            = 0x01
	frameACK             = 0x02
	frameACKWithECN      = 0x03
	frameCrypto          = 0x06
	frameConnectionClose = 0x1c
)

// readFrames takes the handshake out of the frames of a packet.
func (s *stream) readFrames(frames []byte) error {
	r := reader{rest: frames}
	for len(r.rest) > 0 {
		switch kind := r.varint(); kind {
		case framePadding:
			r.rest = bytes.TrimLeft(r.rest, "\x00") // most of a packet may be padding
		case framePing:
		case frameACK, frameACKWithECN:
			r.skipACK(kind == frameACKWithECN)
		case frameCrypto:
			offset := r.varint()
			data := r.take(r.varint())
			if err := s.write(offset, data); err != nil {
				return err
			}
		case frameConnectionClose:
			r.varint() // the error
			r.varint() // the frame to blame
			r.take(r.varint())
		default:
			return fmt.Errorf("frame of type %#x in an Initial packet", kind)
		}
	}
	if r.short {
		return errors.New("frame in an Initial packet is cut off")
	}
	return nil
}

func (r *reader) skipACK(ecn bool) {
	r.varint() // the largest
	r.varint() // the delay
	ranges := r.varint()
	r.varint() // the first range
	for ; ranges > 0 && !r.short; ranges-- {
		r.varint()
		r.varint()
	}
	if ecn {
		r.varint()
		r.varint()
		r.varint()
	}
}
