//go:build linux

package supervise

import "time"

const (
	firstWait = time.Second
	maxWait   = 30 * time.Second
	// A program that ran this long is no longer one that can not start.
	stable = time.Minute
)

// backoff is the time between an end and the next start. It doubles while the
// program keeps ending.
type backoff struct{ last time.Duration }

func (b *backoff) next(ran time.Duration) time.Duration {
	if b.last == 0 || ran >= stable {
		b.last = firstWait
	} else {
		b.last = min(2*b.last, maxWait)
	}
	return b.last
}
