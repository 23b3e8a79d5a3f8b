package quic_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
)

// The connection of RFC 9001, appendix A.
var (
	sampleID  = unhex("8394c8f03e515708")
	sampleKey = unhex("1f369613dd76d5467730efcbe3b1a22d")
	sampleIV  = unhex("fa044b2f42a3fd3b46fb255c")
	sampleHP  = unhex("9f50449e04a0e810283a1e9933adedd2")
)

// sampleHello is the ClientHello of that appendix: example.com, alpn.
var sampleHello = unhex(`
	010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47
	f06a2b69484c00000413011302010000c000000010000e00000b6578616d706c
	652e636f6dff01000100000a00080006001d0017001800100007000504616c70
	6e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559f
	edba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d001000
	0e0403050306030203080408050806002d00020101001c000240010039003204
	08ffffffffffffffff05048000ffff07048000ffff0801100104800075300901
	100f088394c8f03e51570806048000ffff`)

func unhex(text string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	return unhex(string(text))
}

// sealed is a datagram with one Initial packet of the sample connection, or
// with several, each with its frames.
func sealed(packets ...[]byte) []byte {
	var datagram []byte
	for i, frames := range packets {
		h := sampleHeader
		h.number = uint64(i)
		datagram = append(datagram, h.seal(frames)...)
	}
	if missing := 1200 - len(datagram); missing > 0 {
		last := len(packets) - 1
		padded := slices.Clone(packets)
		padded[last] = slices.Concat(packets[last], make([]byte, missing))
		return sealed(padded...)
	}
	return datagram
}

// header of a packet: its last two bits are one less than the bytes of the
// number that are sent.
type header struct {
	first   byte
	version uint32
	id      []byte
	noToken bool // for packets that are not Initial
	number  uint64
}

var sampleHeader = header{first: 0xc0, version: 1, id: sampleID}

// seal protects frames with the keys of the sample connection, whatever the
// header says.
func (h header) seal(frames []byte) []byte {
	frames = slices.Concat(frames, make([]byte, 3)) // enough for a sample
	length := int(h.first&3) + 1
	packet := binary.BigEndian.AppendUint32([]byte{h.first}, h.version)
	packet = append(packet, byte(len(h.id)))
	packet = append(packet, h.id...)
	packet = append(packet, 0)
	if !h.noToken {
		packet = append(packet, 2, 't', 'o')
	}
	packet = binary.BigEndian.AppendUint32(packet, 2<<30|uint32(length+len(frames)+16))
	at := len(packet)
	packet = append(packet, binary.BigEndian.AppendUint64(nil, h.number)[8-length:]...)

	block, _ := aes.NewCipher(sampleKey)
	aead, _ := cipher.NewGCM(block)
	nonce := slices.Clone(sampleIV)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^h.number)
	packet = append(packet, aead.Seal(nil, nonce, frames, packet)...)

	hp, _ := aes.NewCipher(sampleHP)
	mask := make([]byte, 16)
	hp.Encrypt(mask, packet[at+4:][:16])
	packet[0] ^= mask[0] & 0x0f
	for i := range length {
		packet[at+i] ^= mask[1+i]
	}
	return packet
}

// crypto is a CRYPTO frame with bytes of the handshake.
func crypto(handshake []byte, from, to int) []byte {
	frame := []byte{6}
	frame = binary.BigEndian.AppendUint32(frame, 2<<30|uint32(from))
	frame = binary.BigEndian.AppendUint32(frame, 2<<30|uint32(to-from))
	return append(frame, handshake[from:to]...)
}
