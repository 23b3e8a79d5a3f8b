//go:build linux

package engine_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The numbers of include/waybill.h, and the parts of a blob.
const (
	solWaybill     = 0x5742
	optionRecords  = 1
	hopSize        = 40
	sealSize       = 16
	hopsOffset     = 2
	sinceAccepted  = 100_000 // how often a valid blob shows that the test still tests
	longestMutated = 4096
)

// mutateSummary is what the role "mutate" prints.
type mutateSummary struct {
	Tried    int
	Accepted []string // altered blobs that were accepted, as hex
	Refused  map[string]int
	Valid    int // of the unaltered blobs in between, those accepted
	Controls int // all of those
}

// playMutate sets altered blobs on a socket: count of them, made from the
// valid ones that follow, and from a seed.
func playMutate(args []string) error {
	seed, _ := strconv.ParseUint(args[0], 10, 64)
	count, _ := strconv.Atoi(args[1])
	var valid [][]byte
	for _, arg := range args[2:] {
		blob, err := hex.DecodeString(arg)
		if err != nil {
			return err
		}
		valid = append(valid, blob)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	set := func(blob []byte) error { return unix.SetsockoptString(fd, solWaybill, optionRecords, string(blob)) }
	m := mutator{rng: rand.New(rand.NewPCG(seed, 0)), valid: valid}
	sum := mutateSummary{Refused: make(map[string]int)}
	for sum.Tried < count {
		if sum.Tried%sinceAccepted == 0 {
			sum.Controls++
			if set(valid[m.rng.IntN(len(valid))]) == nil {
				sum.Valid++
			}
		}
		blob := m.next()
		if m.isValid(blob) {
			continue
		}
		sum.Tried++
		if err := set(blob); err != nil {
			sum.Refused[err.Error()]++
		} else {
			sum.Accepted = append(sum.Accepted, hex.EncodeToString(blob))
		}
	}
	return json.NewEncoder(os.Stdout).Encode(sum)
}

// mutator alters valid blobs as somebody would who knows their layout.
type mutator struct {
	rng   *rand.Rand
	valid [][]byte
	buf   []byte
}

func (m *mutator) isValid(blob []byte) bool {
	for _, v := range m.valid {
		if bytes.Equal(v, blob) {
			return true
		}
	}
	return false
}

func (m *mutator) pick() []byte { return m.valid[m.rng.IntN(len(m.valid))] }

func (m *mutator) fill(b []byte) {
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
}

// next returns bytes that hold until the next call.
func (m *mutator) next() []byte {
	m.buf = append(m.buf[:0], m.pick()...)
	for range 1 + m.rng.IntN(3) {
		m.mutate()
	}
	return m.buf
}

func (m *mutator) mutate() {
	n := len(m.buf)
	if n < sealSize+hopSize {
		m.grow()
		return
	}
	switch m.rng.IntN(9) {
	case 0: // a bit
		m.buf[m.rng.IntN(n)] ^= 1 << m.rng.IntN(8)
	case 1: // some bytes
		at := m.rng.IntN(n)
		m.fill(m.buf[at:min(n, at+1+m.rng.IntN(16))])
	case 2: // another seal
		m.fill(m.buf[n-sealSize:])
	case 3: // shorter
		m.buf = m.buf[:m.rng.IntN(n)]
	case 4: // longer
		m.grow()
	case 5: // a hop less, and a count that says so
		m.buf = append(m.buf[:n-sealSize-hopSize], m.buf[n-sealSize:]...)
		m.buf[hopsOffset]--
	case 6: // the last hop once more, and a count that says so
		end := n - sealSize
		m.buf = append(m.buf, make([]byte, hopSize)...)
		copy(m.buf[end+hopSize:], m.buf[end:n])
		copy(m.buf[end:], m.buf[end-hopSize:end])
		m.buf[hopsOffset]++
	case 7: // the head of one, the tail of another
		other := m.pick()
		at := m.rng.IntN(min(n, len(other)))
		m.buf = append(m.buf[:at], other[at:]...)
	case 8: // the seal of another
		other := m.pick()
		copy(m.buf[n-sealSize:], other[len(other)-sealSize:])
	}
}

func (m *mutator) grow() {
	n := len(m.buf)
	m.buf = append(m.buf, make([]byte, min(1+m.rng.IntN(2*hopSize), longestMutated-n))...)
	m.fill(m.buf[n:])
}

func (s mutateSummary) String() string {
	return fmt.Sprintf("%d altered blobs, %d accepted, refused: %v; %d of %d unaltered ones accepted",
		s.Tried, len(s.Accepted), s.Refused, s.Valid, s.Controls)
}
