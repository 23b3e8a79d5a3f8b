package inspect

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestOutput: nobody who says something waits for who reads it. The lines come
// in order, and what is missing is counted where it is missing.
func TestOutput(t *testing.T) {
	t.Parallel()
	const lines = 3 * maxWaiting / 100
	r, w := io.Pipe()
	o := newOutput(w)
	say := func(i int) { o.add(fmt.Sprintf("%-100d", i)) }
	for i := range lines {
		say(i) // and nobody reads
	}
	reader := bufio.NewScanner(r)
	next, lost := 0, 0
	read := func() (more bool) {
		if !reader.Scan() {
			return false
		}
		var n int
		if _, err := fmt.Sscanf(reader.Text(), "%d lines lost", &n); err == nil {
			next, lost = next+n, lost+n
			return true
		}
		if got := strings.TrimSpace(reader.Text()); got != fmt.Sprint(next) {
			t.Errorf("line %q, want %d", got, next)
		}
		next++
		return true
	}
	for next < lines && read() {
	}
	if lost < lines/4 || lost > lines*3/4 { // what waits, and up to as much that is being written, are not
		t.Errorf("%d of %d were lost", lost, lines)
	}
	say(lines) // there is room again
	go func() {
		o.close()
		w.Close()
	}()
	for read() {
	}
	if next != lines+1 {
		t.Errorf("the last was not written: %d", next)
	}
}

// stuck is a pipe that nobody reads.
type stuck chan struct{}

func (s stuck) Write(b []byte) (int, error) {
	<-s
	return len(b), nil
}

// TestOutputStuck: who never reads does not keep the proxy from its end.
func TestOutputStuck(t *testing.T) {
	t.Parallel()
	pipe := make(stuck)
	o := newOutput(pipe)
	o.add("a line")
	o.close()
	select {
	case <-o.done:
		t.Error("the line was written")
	default:
	}
	close(pipe)
	<-o.done
}
