//go:build !linux && !windows

package waybill

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"syscall"
)

func unsupported(op string) error {
	return &OpError{Op: op, Err: errors.New("not on " + runtime.GOOS), kind: ErrNotSupported}
}

func queryRecords(context.Context, syscall.Conn) ([]byte, error) {
	return nil, unsupported(opQueryRecords)
}

func queryContext(context.Context, syscall.Conn) ([]byte, error) {
	return nil, unsupported(opQueryContext)
}

func originalDestination(syscall.Conn) (netip.AddrPort, error) {
	return netip.AddrPort{}, unsupported(opQueryDst)
}

func queryOrigin(syscall.Conn) (Origin, error) { return Origin{}, unsupported(opQueryOrigin) }

func queryState(syscall.Conn) (State, int, error) { return 0, 0, unsupported(opQueryState) }

func describe(syscall.Conn) (netip.AddrPort, Origin, error) {
	return netip.AddrPort{}, Origin{}, unsupported(opQueryDst)
}

func setRecords(context.Context, syscall.RawConn, Records) error { return unsupported(opSetRecords) }
