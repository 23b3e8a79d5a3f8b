package wfp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Socket is what requests are made to.
type Socket interface {
	// Begin is one call of WSAIoctl. Unless it returns a Pending, the request
	// is over. n is what the call wrote to lpcbBytesReturned, also on an error.
	Begin(code Code, in, out []byte) (n int, p Pending, err error)
}

// Pending is a request that Winsock answered with WSA_IO_PENDING. Until it is
// over the system may write to its buffers, which it therefore keeps.
type Pending interface {
	// Wait reports whether the request is over. It gives up when ctx is done.
	Wait(ctx context.Context) (over bool)

	// Cancel asks for the request's end, which may come later or never.
	Cancel()

	// Result is that of a request that is over, or ErrIOIncomplete.
	Result() (n int, err error)

	// Release frees what is kept. If the request is not over that stays, for
	// as long as the process lives.
	Release()
}

const (
	// patience is how long a request may be pending, whatever the context
	// says. No client is known that was ever made to wait at all, but there
	// are systems that answer WSA_IO_PENDING and then never set the event.
	patience = 5 * time.Second

	// grace is how long a cancelled request has to come to its end.
	grace = time.Second
)

// errNoAnswer: the patience is at its end. It is a timeout.
var errNoAnswer = fmt.Errorf("no answer within %v: %w", patience, os.ErrDeadlineExceeded)

// request makes one request and sees it through.
func request(ctx context.Context, s Socket, code Code, in, out []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n, pending, err := s.Begin(code, in, out)
	if pending == nil {
		return n, orClosed(err)
	}
	defer pending.Release()
	// It may be over, and there are systems on which only this tells.
	if n, err = pending.Result(); !errors.Is(err, ErrIOIncomplete) {
		return n, orClosed(err)
	}
	return finish(ctx, pending)
}

// orClosed: if not we have aborted a request, who closed its socket has.
func orClosed(err error) error {
	if errors.Is(err, ErrOperationAborted) {
		return fmt.Errorf("%w (%w)", net.ErrClosed, err)
	}
	return err
}

// finish waits for a request that is pending.
func finish(ctx context.Context, pending Pending) (int, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if pending.Wait(limited) {
		n, err := pending.Result()
		return n, orClosed(err)
	}
	pending.Cancel()
	last, cancelLast := context.WithTimeout(context.Background(), grace)
	defer cancelLast()
	pending.Wait(last)
	n, err := pending.Result()
	if errors.Is(err, ErrOperationAborted) || errors.Is(err, ErrIOIncomplete) {
		return 0, fmt.Errorf("%w (%w)", why(ctx), err)
	}
	return n, err // it was faster than its cancellation
}

// why is the reason for which a request was cancelled.
func why(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return errNoAnswer
}
