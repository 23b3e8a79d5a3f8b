//go:build !linux

package waybill

import "syscall"

func explainErrno(string, syscall.Errno) (hint string, kind error) { return "", nil }
