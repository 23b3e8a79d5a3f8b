//go:build linux

package interop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
)

const blockSize = 64 << 10

// block is the same in every process: what one side sends, the other knows.
var block = sync.OnceValue(func() []byte {
	b := make([]byte, blockSize)
	rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
})

// dataReader makes data of which no two blocks are alike: a block lost,
// doubled or exchanged is noticed, as a byte is.
type dataReader struct {
	block []byte
	n     uint64 // blocks made
	rest  []byte // of the newest
}

func (r *dataReader) next() []byte {
	if r.block == nil {
		r.block = slices.Clone(block())
	}
	if len(r.rest) == 0 {
		// It begins with no letter: proxies must not take it for HTTP.
		binary.BigEndian.PutUint64(r.block, ^r.n)
		r.n++
		r.rest = r.block
	}
	return r.rest
}

func (r *dataReader) Read(p []byte) (int, error) {
	n := copy(p, r.next())
	r.rest = r.rest[n:]
	return n, nil
}

// data is the first size bytes of it.
func data(size int64) io.Reader { return io.LimitReader(&dataReader{}, size) }

// dataChecker fails at the first byte that is not as it was sent.
type dataChecker struct {
	want dataReader
	size int64 // of what was intact
}

func (c *dataChecker) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		want := c.want.next()
		n := min(len(want), len(p)-done)
		if !bytes.Equal(want[:n], p[done:done+n]) {
			return done, fmt.Errorf("bytes after %d are not those that were sent", c.size)
		}
		c.want.rest = want[n:]
		c.size += int64(n)
		done += n
	}
	return done, nil
}

// checkData reads to the end and expects size bytes, as they were sent.
func checkData(r io.Reader, size int64) error {
	var c dataChecker
	_, err := io.CopyBuffer(&c, struct{ io.Reader }{r}, make([]byte, blockSize))
	if err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", c.size, size, err)
	}
	if c.size != size {
		return fmt.Errorf("%d of %d bytes came", c.size, size)
	}
	return nil
}
