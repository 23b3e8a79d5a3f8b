package dns_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/waybill-net/waybill/internal/dns"
)

func TestScanner(t *testing.T) {
	longest := bytes.Repeat([]byte("x"), 65535)
	for name, messages := range map[string][][]byte{
		"none":    nil,
		"one":     {[]byte("a message")},
		"empty":   {{}, []byte("a"), {}},
		"many":    slices.Repeat([][]byte{[]byte("a"), []byte("bc")}, 1000),
		"longest": {[]byte("a"), longest, []byte("b"), longest, longest},
		// More than bufio takes where nothing goes forward.
		"many that are empty": make([][]byte, 1000),
	} {
		var stream []byte
		for _, m := range messages {
			stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(m))), m...)
		}
		for how, reader := range map[string]io.Reader{
			"at once": bytes.NewReader(stream), "by halves": iotest.HalfReader(bytes.NewReader(stream)),
			"by bytes": iotest.OneByteReader(bytes.NewReader(stream)), "to the end": iotest.DataErrReader(bytes.NewReader(stream)),
		} {
			got, err := scan(reader)
			if err != nil || !slices.EqualFunc(got, messages, bytes.Equal) {
				t.Errorf("%s, %s: %d messages, %v; want %d", name, how, len(got), err, len(messages))
			}
		}
	}
}

func TestScannerErrors(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		stream io.Reader
		want   error
	}{
		"in the length":    {bytes.NewReader([]byte{0, 1, 'a', 0}), io.ErrUnexpectedEOF},
		"after the length": {bytes.NewReader([]byte{0, 1, 'a', 0, 1}), io.ErrUnexpectedEOF},
		"in a message":     {bytes.NewReader([]byte{0, 1, 'a', 0, 2, 'b'}), io.ErrUnexpectedEOF},
		"connection":       {io.MultiReader(bytes.NewReader([]byte{0, 1, 'a', 0, 2}), iotest.ErrReader(broken)), broken},
	} {
		got, err := scan(tt.stream)
		if len(got) != 1 || string(got[0]) != "a" || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %q, %v; want %v", name, got, err, tt.want)
		}
	}
}

func scan(stream io.Reader) (messages [][]byte, err error) {
	s := dns.NewScanner(stream)
	for s.Scan() {
		messages = append(messages, bytes.Clone(s.Bytes()))
	}
	return messages, s.Err()
}
