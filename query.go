package waybill

import (
	"context"
	"net/netip"
	"syscall"
)

// The functions in this file are the whole protocol: each is one system call
// on a socket, given as anything with a SyscallConn method, such as a
// *net.TCPConn. The socket stays the caller's. Every error is an [*OpError].
//
// Queries fail with an error that wraps
//   - ErrNotRedirected if the connection carries no records,
//   - ErrNotSupported if waybill does not cover the socket,
//   - syscall.ENOTCONN, on Windows windows.WSAENOTCONN, if the socket is not
//     connected; the client may have closed the connection since it was
//     accepted.
//
// On Windows a request may be pending. The functions with a context end it
// when that is done; all of them do after some seconds.

// QueryRecords reads the records from an accepted connection. Reading does
// not consume them.
func QueryRecords(c syscall.Conn) (Records, error) {
	return QueryRecordsContext(context.Background(), c)
}

// QueryRecordsContext is [QueryRecords], for as long as ctx lets it.
func QueryRecordsContext(ctx context.Context, c syscall.Conn) (Records, error) {
	b, err := queryRecords(ctx, c)
	return Records(b), err
}

// QueryContext reads the bytes that the provider's filter attached for its
// own proxy. It fails with ErrNotRedirected if there are none, or if the
// calling process belongs to another provider.
//
// It is WFP's redirect context, not a [context.Context].
func QueryContext(c syscall.Conn) ([]byte, error) {
	return queryContext(context.Background(), c)
}

// OriginalDestination reads where the connection was going before it was
// redirected to this proxy. IPv4 addresses are never IPv4-mapped.
//
// On Windows it is in the redirect context, if that has the form of
// Microsoft's sample, or what SO_ORIGINAL_DST answers.
func OriginalDestination(c syscall.Conn) (netip.AddrPort, error) {
	return originalDestination(c)
}

// QueryOrigin reads which process opened the connection at the start of the
// chain. On Windows only the kernel knows.
func QueryOrigin(c syscall.Conn) (Origin, error) { return queryOrigin(c) }

// QueryState reads the state of the connection for the provider that the
// calling process belongs to, and the number of redirects so far. It answers
// NotRedirected, rather than failing, for a connection without records. On
// Windows only the kernel knows.
func QueryState(c syscall.Conn) (state State, hops int, err error) { return queryState(c) }

// SetRecords sets records on a socket that is not connected yet, in place of
// any set before. With [net.Dialer], use [Records.Control]. It fails with an
// error that wraps
//   - ErrPermission if the process is in no provider's process set and has
//     no CAP_NET_ADMIN; on Windows, if it is not elevated,
//   - ErrInvalidRecords if the records were altered or come from another
//     boot or host, or if the socket is connected or is not TCP,
//   - ErrNotSupported if waybill does not cover the socket.
func SetRecords(c syscall.Conn, r Records) error {
	return SetRecordsContext(context.Background(), c, r)
}

// SetRecordsContext is [SetRecords], for as long as ctx lets it.
func SetRecordsContext(ctx context.Context, c syscall.Conn, r Records) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return opError(opSetRecords, err)
	}
	return setRecords(ctx, raw, r)
}
