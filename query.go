package waybill

import (
	"net/netip"
	"slices"
	"syscall"
)

// The functions in this file are the whole protocol: each is one system call
// on a socket, given as anything with a SyscallConn method, such as a
// *net.TCPConn. The socket stays the caller's. Every error is an [*OpError].
//
// Queries fail with an error that wraps
//   - ErrNotRedirected if the connection carries no records,
//   - ErrNotSupported if waybill does not cover the socket,
//   - syscall.ENOTCONN if the socket is not connected; the client may have
//     closed the connection since it was accepted.

// QueryRecords reads the records from an accepted connection. Reading does
// not consume them.
func QueryRecords(c syscall.Conn) (Records, error) {
	b, err := query(c, opQueryRecords, optRecords, make([]byte, recordsMax))
	return Records(slices.Clone(b)), err // what is kept for as long as a connection is to be no longer than it must be
}

// QueryContext reads the bytes that the provider's filter attached for its
// own proxy. It fails with ErrNotRedirected if there are none, or if the
// calling process belongs to another provider.
func QueryContext(c syscall.Conn) ([]byte, error) {
	b, err := query(c, opQueryContext, optContext, make([]byte, contextMax))
	return slices.Clone(b), err
}

// OriginalDestination reads where the connection was going before it was
// redirected to this proxy. IPv4 addresses are never IPv4-mapped.
func OriginalDestination(c syscall.Conn) (netip.AddrPort, error) {
	b, err := query(c, opQueryDst, optOriginalDst, make([]byte, sockaddrMax))
	if err != nil {
		return netip.AddrPort{}, err
	}
	return decodeSockaddr(b)
}

// QueryOrigin reads which process opened the connection at the start of the
// chain.
func QueryOrigin(c syscall.Conn) (Origin, error) {
	b, err := query(c, opQueryOrigin, optOrigin, make([]byte, originSize))
	if err != nil {
		return Origin{}, err
	}
	return decodeOrigin(b)
}

// QueryState reads the state of the connection for the provider that the
// calling process belongs to, and the number of redirects so far. It answers
// NotRedirected, rather than failing, for a connection without records.
func QueryState(c syscall.Conn) (state State, hops int, err error) {
	b, err := query(c, opQueryState, optState, make([]byte, stateSize))
	if err != nil {
		return 0, 0, err
	}
	return decodeState(b)
}

// SetRecords sets records on a socket that is not connected yet, in place of
// any set before. With [net.Dialer], use [Records.Control]. It fails with an
// error that wraps
//   - ErrPermission if the process is in no provider's process set and has
//     no CAP_NET_ADMIN,
//   - ErrInvalidRecords if the records were altered or come from another
//     boot or host, or if the socket is connected or is not TCP,
//   - ErrNotSupported if waybill does not cover the socket.
func SetRecords(c syscall.Conn, r Records) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return opError(opSetRecords, err)
	}
	return setRecords(raw, r)
}
