package waybill

import "syscall"

// errNotConnected is what a query answers when the client has gone.
const errNotConnected = syscall.ENOTCONN

// explainErrno maps the error numbers of docs/sockopt.md.
func explainErrno(op string, errno syscall.Errno) (hint string, kind error) {
	switch errno {
	case syscall.ENODATA:
		return "", ErrNotRedirected
	case syscall.ENOPROTOOPT, syscall.EOPNOTSUPP:
		return "waybill is not running, or this socket is outside its scope: see waybill status", ErrNotSupported
	case syscall.ELOOP:
		return "at most 8; waybill flows shows the providers", ErrTooManyHops
	}
	if op == opDial && errno == syscall.EACCES {
		return "a provider that is down blocks this connection, or a firewall does", nil
	}
	if op == opSetRecords {
		switch errno {
		case syscall.EACCES:
			return "only a process in a provider's cgroup, or one with CAP_NET_ADMIN, may", ErrPermission
		case syscall.EINVAL:
			return "set them unaltered, on a TCP socket, before connect", ErrInvalidRecords
		}
	}
	return "", nil
}
