//go:build !linux

package waybill

import "syscall"

func explainErrno(string, syscall.Errno) (kind error, hint string) { return nil, "" }
