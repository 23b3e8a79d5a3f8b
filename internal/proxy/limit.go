package proxy

import (
	"sync/atomic"
	"time"
)

// limit bounds what is open at once. The zero value is no bound.
type limit struct {
	slots   chan struct{}
	refused atomic.Int64
	tell    func(refused int) // once a second, not for each; nil: nobody
	timer   *time.Timer       // of the accepting goroutine, as is take
}

func newLimit(n int, tell func(refused int)) *limit {
	l := &limit{tell: tell}
	if n > 0 {
		l.slots = make(chan struct{}, n)
	}
	return l
}

// take reports whether there is room for one more. If not, it is counted.
func (l *limit) take() bool {
	if l.slots == nil {
		return true
	}
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	if l.refused.Add(1) == 1 {
		l.timer = time.AfterFunc(time.Second, l.report)
	}
	return false
}

// give gives back what take took.
func (l *limit) give() {
	if l.slots != nil {
		<-l.slots
	}
}

// close tells of the last ones.
func (l *limit) close() {
	if l.timer != nil && l.timer.Stop() {
		l.report()
	}
}

func (l *limit) report() {
	if n := l.refused.Swap(0); l.tell != nil {
		l.tell(int(n))
	}
}
