//go:build !linux

package waybill

import (
	"errors"
	"net/netip"
	"runtime"
	"syscall"
)

const (
	optRecords = iota
	optContext
	optOriginalDst
	optOrigin
	optState

	recordsMax  = 0
	contextMax  = 0
	sockaddrMax = 0
	originSize  = 0
	stateSize   = 0
)

func unsupported(op string) error {
	return &OpError{Op: op, Err: errors.New("not on " + runtime.GOOS), kind: ErrNotSupported}
}

func query(_ syscall.Conn, op string, _ int, _ []byte) ([]byte, error) { return nil, unsupported(op) }

func setRecords(syscall.RawConn, Records) error { return unsupported(opSetRecords) }

func decodeSockaddr([]byte) (netip.AddrPort, error) { return netip.AddrPort{}, unsupported(opQueryDst) }

func decodeOrigin([]byte) (Origin, error) { return Origin{}, unsupported(opQueryOrigin) }

func decodeState([]byte) (State, int, error) { return 0, 0, unsupported(opQueryState) }
