//go:build linux

package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"sync"
)

// load is a client process, as the run sees it.
type load struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{} // closed when it has said its last

	mu       sync.Mutex
	tally    tally
	failures []failure
	err      error // why it ended before it was done
}

func (s *scene) startLoad(o clientOrder) (*load, error) {
	cmd := roleCommand(roleClient)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.start("app", cmd); err != nil {
		return nil, err
	}
	l := &load{cmd: cmd, in: in, done: make(chan struct{})}
	go l.listen(out)
	return l, json.NewEncoder(in).Encode(o)
}

func (l *load) listen(out io.Reader) {
	defer close(l.done)
	news := json.NewDecoder(out)
	for done := false; !done; {
		var n clientNews
		if err := news.Decode(&n); err != nil {
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			break
		}
		l.hear(&n)
		done = n.Done
	}
	l.in.Close()
	l.cmd.Wait()
}

func (l *load) hear(n *clientNews) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.Tally != nil {
		l.tally = *n.Tally
	}
	if n.Failure != nil {
		l.failures = append(l.failures, *n.Failure)
	}
}

// stop lets the open flows end and waits for that.
func (l *load) stop() error {
	l.in.Close()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *load) so() (tally, []failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally, l.failures
}
