package waybill

import "syscall"

// explainErrno maps the error numbers of docs/sockopt.md.
func explainErrno(op string, errno syscall.Errno) (kind error, hint string) {
	switch errno {
	case syscall.ENODATA:
		return ErrNotRedirected, ""
	case syscall.ENOPROTOOPT, syscall.EOPNOTSUPP:
		return ErrNotSupported, "waybill is not running, or this socket is outside its scope: see waybill status"
	case syscall.ELOOP:
		return ErrTooManyHops, "at most 8; waybill flows shows the providers"
	}
	if op == opSetRecords {
		switch errno {
		case syscall.EACCES:
			return ErrPermission, "only a process in a provider's cgroup, or one with CAP_NET_ADMIN, may"
		case syscall.EINVAL:
			return ErrInvalidRecords, "set them unaltered, on a TCP socket, before connect"
		}
	}
	return nil, ""
}
