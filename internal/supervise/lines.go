//go:build linux

package supervise

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

const (
	keptLines = 10
	maxLine   = 8 << 10 // a longer one is cut into several
)

// tail keeps the last lines that a program printed.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == keptLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, line)
}

func (t *tail) last() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines...)
}

// copyLines reads what a program prints until its last process has closed it.
func (t *tail) copyLines(from io.Reader, prefix string, to io.Writer) {
	var rest []byte
	emit := func(line []byte) {
		t.add(string(line))
		if to != nil {
			io.WriteString(to, prefix+string(line)+"\n") // one Write: lines of others stand whole beside it
		}
	}
	buf := make([]byte, maxLine)
	for {
		n, err := from.Read(buf)
		rest = append(rest, buf[:n]...)
		for {
			line, after, ok := bytes.Cut(rest, []byte("\n"))
			if !ok && len(rest) < maxLine {
				break
			}
			emit(bytes.TrimSuffix(line, []byte("\r")))
			rest = after
		}
		if err != nil {
			break
		}
	}
	if len(rest) > 0 {
		emit(rest)
	}
}

// readTail returns the last lines of a log file.
func readTail(f *os.File) []string {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	// The file may be open for writing alone.
	in, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil
	}
	defer in.Close()
	size := min(st.Size(), maxLine)
	b, err := io.ReadAll(io.NewSectionReader(in, st.Size()-size, size))
	if err != nil || len(b) == 0 {
		return nil
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	return lines[max(0, len(lines)-keptLines):]
}
