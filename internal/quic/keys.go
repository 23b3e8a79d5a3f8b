package quic

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// keys open the Initial packets of one side, or protect them (RFC 9001,
// section 5).
type keys struct {
	aead   cipher.AEAD
	iv     []byte
	header cipher.Block
	next   uint64 // one more than the largest packet number
}

// The labels of the two sides' secrets.
const (
	clientSide = "client in"
	serverSide = "server in"
)

// newKeys fails only where crypto does: a module in FIPS 140 mode refuses
// secrets that short.
func newKeys(v version, dcid []byte, side string) (*keys, error) {
	initial, err := hkdf.Extract(sha256.New, dcid, []byte(v.salt))
	if err != nil {
		return nil, err
	}
	secret, err := expandLabel(initial, side, sha256.Size)
	if err != nil {
		return nil, err
	}
	key, keyErr := expandLabel(secret, v.label+"key", 16)
	iv, ivErr := expandLabel(secret, v.label+"iv", 12)
	hp, hpErr := expandLabel(secret, v.label+"hp", 16)
	if err := errors.Join(keyErr, ivErr, hpErr); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	header, err := aes.NewCipher(hp)
	if err != nil {
		return nil, err
	}
	return &keys{aead: aead, iv: iv, header: header}, nil
}

// expandLabel is HKDF-Expand-Label of RFC 8446, section 7.1, without a context.
func expandLabel(secret []byte, label string, length int) ([]byte, error) {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len(label)))
	info = append(info, label...)
	info = append(info, 0)
	return hkdf.Expand(sha256.New, secret, string(info), length)
}

// longestNumber: the length of a packet number is protected itself, so the
// sample for that begins where it would be at the longest.
const longestNumber = 4

// open returns the frames of a packet, if it was protected with these keys.
func (k *keys) open(p packet) (frames []byte, ok bool) {
	protected := p.bytes[p.number:]
	if len(protected) < longestNumber+aes.BlockSize {
		return nil, false
	}
	var mask [aes.BlockSize]byte
	k.header.Encrypt(mask[:], protected[longestNumber:][:aes.BlockSize])

	header := bytes.Clone(p.bytes[:p.number+longestNumber])
	header[0] ^= mask[0] & 0x0f
	length := int(header[0]&3) + 1
	header = header[:p.number+length]
	var truncated uint64
	for i := range length {
		header[p.number+i] ^= mask[1+i]
		truncated = truncated<<8 | uint64(header[p.number+i])
	}
	number := k.expandNumber(truncated, length)

	frames, err := k.aead.Open(nil, k.nonce(number), protected[length:], header)
	if err != nil {
		return nil, false
	}
	k.next = max(k.next, number+1)
	return frames, true
}

func (k *keys) nonce(number uint64) []byte {
	nonce := bytes.Clone(k.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^number)
	return nonce
}

// seal protects a packet, whose header ends with its number in four bytes.
func (k *keys) seal(header, frames []byte, number uint32) []byte {
	p := k.aead.Seal(bytes.Clone(header), k.nonce(uint64(number)), frames, header)
	var mask [aes.BlockSize]byte
	k.header.Encrypt(mask[:], p[len(header):][:aes.BlockSize])
	p[0] ^= mask[0] & 0x0f
	for i := range longestNumber {
		p[len(header)-longestNumber+i] ^= mask[1+i]
	}
	return p
}

// expandNumber finds the packet number nearest to the expected one that ends
// with these bytes (RFC 9000, appendix A.3).
func (k *keys) expandNumber(truncated uint64, length int) uint64 {
	window := uint64(1) << (8 * length)
	number := k.next&^(window-1) | truncated
	switch {
	case number+window/2 <= k.next:
		return number + window
	case number > k.next+window/2 && number >= window:
		return number - window
	}
	return number
}
