// Package wfp makes the requests by which Windows' Filtering Platform lets a
// proxy read redirect records from one socket and set them on another: the
// codes, the sizes of buffers, requests that are pending, and what error
// numbers mean. The calls themselves are a [Socket], which is Winsock's on
// Windows and another one in tests.
package wfp

import "syscall"

// Code is a control code of WSAIoctl.
type Code uint32

// As in mstcpip.h. Those that query are coded as taking input, but only
// produce output.
const (
	QueryRecords        Code = 0x980000DC // SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
	QueryContext        Code = 0x980000DD // SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
	SetRecords          Code = 0x980000DE // SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS
	QueryEndpointHandle Code = 0x580000CD // SIO_QUERY_WFP_ALE_ENDPOINT_HANDLE
)

// Socket options, by level.
const (
	LevelSocket = 0xffff // SOL_SOCKET
	LevelIP     = 0      // IPPROTO_IP
	LevelIPv6   = 41     // IPPROTO_IPV6

	OriginalDestination = 0x300F // SO_ORIGINAL_DST

	// Of IP and IPv6 alike, and the types of ancillary data of a datagram:
	// IP_WFP_REDIRECT_RECORDS, IP_WFP_REDIRECT_CONTEXT.
	RedirectRecords = 60
	RedirectContext = 70
)

// Error numbers of Winsock, and of Windows where Winsock passes them on. They
// are here, and not of x/sys/windows, because tests run everywhere.
const (
	ErrNotSupported       syscall.Errno = 50  // ERROR_NOT_SUPPORTED
	ErrInsufficientBuffer syscall.Errno = 122 // ERROR_INSUFFICIENT_BUFFER
	ErrMoreData           syscall.Errno = 234 // ERROR_MORE_DATA
	ErrOperationAborted   syscall.Errno = 995 // WSA_OPERATION_ABORTED
	ErrIOIncomplete       syscall.Errno = 996 // WSA_IO_INCOMPLETE
	ErrIOPending          syscall.Errno = 997 // WSA_IO_PENDING
	ErrNotFound           syscall.Errno = 1168

	EINTR       syscall.Errno = 10004
	EACCES      syscall.Errno = 10013
	EFAULT      syscall.Errno = 10014
	EINVAL      syscall.Errno = 10022
	EINPROGRESS syscall.Errno = 10036
	ENOTSOCK    syscall.Errno = 10038
	ENOPROTOOPT syscall.Errno = 10042
	EOPNOTSUPP  syscall.Errno = 10045
	ENETDOWN    syscall.Errno = 10050
	ENOBUFS     syscall.Errno = 10055
	ENOTCONN    syscall.Errno = 10057

	// FWP_E_NOT_FOUND, which Microsoft's sample takes for "no context".
	ErrFilterNotFound syscall.Errno = 0x80320008
)
