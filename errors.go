package waybill

import (
	"errors"
	"io/fs"
	"net"
	"syscall"
)

// What callers branch on. Every error of this package is an [*OpError] that
// wraps one of these, the system's error number, or both.
var (
	// ErrNotRedirected: the connection carries no records, or no context for
	// this provider. It came straight to the proxy's own address.
	ErrNotRedirected = errors.New("connection was not redirected")

	// ErrNotSupported: waybill is not active for this socket, or does not
	// exist on this system.
	ErrNotSupported = errors.New("redirect records are not supported")

	// ErrPermission: the process may not set records. It also matches
	// fs.ErrPermission.
	ErrPermission error = permissionError{}

	// ErrInvalidRecords: the records are malformed, altered or sealed by
	// another waybill, or the socket can not take records any more.
	ErrInvalidRecords = errors.New("invalid records")

	// ErrTooManyHops: the flow has been redirected as often as waybill allows.
	ErrTooManyHops = errors.New("too many redirects of one flow")
)

// permissionError matches fs.ErrPermission by itself: Winsock's number for it
// does not.
type permissionError struct{}

func (permissionError) Error() string { return "not permitted to set records" }

func (permissionError) Is(target error) bool { return target == fs.ErrPermission }

// OpError is the error type of this package.
type OpError struct {
	// Op is what was tried: "query records", "set records", "dial" …
	Op string

	// Err is what the system said: a syscall.Errno, on Windows Winsock's; for
	// a request that was cancelled, the context's error and the number; for a
	// dial what [net.Dialer] returned.
	Err error

	kind error  // one of the sentinels above, or nil
	hint string // what to do about it
}

var _ net.Error = (*OpError)(nil)

func (e *OpError) Error() string {
	s := "waybill: " + e.Op + ": "
	if e.kind != nil {
		s += e.kind.Error() + ": "
	}
	s += e.Err.Error()
	if e.hint != "" {
		s += " (" + e.hint + ")"
	}
	return s
}

// Unwrap gives errors.Is and errors.As both the sentinel and the cause.
func (e *OpError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.Err}
	}
	return []error{e.kind, e.Err}
}

// Timeout reports whether the cause was a deadline.
func (e *OpError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// Temporary is part of [net.Error] and deprecated there.
func (e *OpError) Temporary() bool {
	var t interface{ Temporary() bool }
	return errors.As(e.Err, &t) && t.Temporary()
}

// operations with one meaning of EINVAL and one of ENODATA each.
const (
	opQueryRecords = "query records"
	opQueryContext = "query context"
	opQueryOrigin  = "query origin"
	opQueryDst     = "query original destination"
	opQueryState   = "query state"
	opSetRecords   = "set records"
	opAccept       = "accept"
	opDial         = "dial"
)

func opError(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &OpError{Op: op, Err: err}
	var explained *OpError // that setting the records has failed, within a dial
	var errno syscall.Errno
	if !errors.As(err, &explained) && errors.As(err, &errno) {
		e.hint, e.kind = explainErrno(op, errno)
	}
	return e
}
