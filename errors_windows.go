package waybill

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/wfp"
)

const opQueryHandle = "query endpoint handle"

// errNotConnected is what a query answers when the client has gone.
const errNotConnected = windows.WSAENOTCONN

// explainErrno maps the numbers of docs/windows.md.
func explainErrno(op string, errno syscall.Errno) (hint string, kind error) {
	if op == opDial {
		if errno == wfp.EACCES {
			return "a filter of Windows' firewall or of another product blocks this connection", nil
		}
		return "", nil
	}
	explain := explainQuery
	if op == opSetRecords {
		explain = explainSet
	}
	if hint, kind = explain(errno); hint != "" {
		return hint, kind
	}
	return explainAny(errno)
}

// explainAny explains what both kinds of request can answer.
func explainAny(errno syscall.Errno) (hint string, kind error) {
	switch errno {
	case wfp.EOPNOTSUPP, wfp.ErrNotSupported:
		return "Windows is older than 8 or Server 2012, or the transport has no redirect records", ErrNotSupported
	case wfp.ENOPROTOOPT:
		return "the socket's protocol, or this Windows, does not have it", ErrNotSupported
	case wfp.ENOTSOCK:
		return "give a socket that is open", nil
	case wfp.ENETDOWN:
		return "the network subsystem has failed: look at the event log, start Windows again", nil
	case wfp.EINPROGRESS:
		return "a callback of Winsock is in progress: try again when it has returned", nil
	case wfp.EINTR:
		return "the call was interrupted: try again", nil
	}
	return "", nil
}

func explainQuery(errno syscall.Errno) (hint string, kind error) {
	switch errno {
	case wfp.EINVAL, wfp.ErrNotFound, wfp.ErrFilterNotFound:
		return "ask the accepted socket, not the listener", ErrNotRedirected
	case wfp.EACCES:
		return "run elevated, as an administrator", fs.ErrPermission
	case wfp.ENOTCONN:
		return "ask the accepted socket, while it is connected", nil
	case wfp.EFAULT, wfp.ErrInsufficientBuffer, wfp.ErrMoreData, wfp.ENOBUFS:
		return "a buffer of 64 KiB was too short, or memory is", nil
	}
	return "", nil
}

func explainSet(errno syscall.Errno) (hint string, kind error) {
	switch errno {
	case wfp.EACCES:
		return "run elevated, as an administrator", ErrPermission
	case wfp.EINVAL:
		return "set them unaltered, on a TCP socket, before bind and connect", ErrInvalidRecords
	case wfp.EFAULT:
		return "the system could not read the records", nil
	case wfp.ENOBUFS:
		return "there is no memory for the records", nil
	}
	return "", nil
}
