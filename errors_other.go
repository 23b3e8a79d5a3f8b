//go:build !linux && !windows

package waybill

import "syscall"

const errNotConnected = syscall.ENOTCONN

func explainErrno(string, syscall.Errno) (hint string, kind error) { return "", nil }
