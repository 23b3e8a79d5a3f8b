package waybill

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/wfp"
)

func queryRecords(ctx context.Context, c syscall.Conn) ([]byte, error) {
	return queryWFP(ctx, c, opQueryRecords, wfp.QueryRecords)
}

func queryContext(ctx context.Context, c syscall.Conn) ([]byte, error) {
	return queryWFP(ctx, c, opQueryContext, wfp.QueryContext)
}

// queryWFP makes one request. Success without a byte means the same as
// NOT_FOUND.
func queryWFP(ctx context.Context, c syscall.Conn, op string, code wfp.Code) (answer []byte, err error) {
	err = control(c, func(s wfp.Handle) (err error) {
		answer, err = wfp.Query(ctx, s, code)
		return err
	})
	switch {
	case err != nil:
		return nil, opError(op, err)
	case len(answer) == 0:
		return nil, &OpError{Op: op, Err: errors.New("the answer is empty"), kind: ErrNotRedirected}
	}
	return append([]byte(nil), answer...), nil // the buffer is much longer, and may be kept for as long as a connection
}

// originalDestination asks for the context first: SO_ORIGINAL_DST is answered
// by Windows Server 2022 and later, for one redirector, that of containers.
func originalDestination(c syscall.Conn) (netip.AddrPort, error) {
	redirect, err := queryWFP(context.Background(), c, opQueryDst, wfp.QueryContext)
	if err != nil && !isUnknown(err) {
		return netip.AddrPort{}, err
	}
	if dst, ok := wfp.ContextDestination(redirect); ok {
		return dst, nil
	}
	dst, optionErr := socketOptionDestination(c)
	if optionErr != nil && err != nil {
		return dst, err // it says more
	}
	return dst, optionErr
}

// isUnknown: Windows does not tell this of the connection, and would not
// if asked again.
func isUnknown(err error) bool {
	return errors.Is(err, ErrNotRedirected) || errors.Is(err, ErrNotSupported)
}

func socketOptionDestination(c syscall.Conn) (netip.AddrPort, error) {
	var b [wfp.SizeofStorage]byte
	size := int32(len(b))
	err := control(c, func(s wfp.Handle) error {
		return windows.Getsockopt(windows.Handle(s), wfp.LevelSocket, wfp.OriginalDestination, (*byte)(unsafe.Pointer(&b)), &size)
	})
	if err != nil {
		return netip.AddrPort{}, opError(opQueryDst, err)
	}
	dst, ok := wfp.Sockaddr(b[:min(int(size), len(b))])
	if !ok {
		return netip.AddrPort{}, &OpError{Op: opQueryDst, Err: errors.New("the answer is no address"), kind: ErrNotRedirected}
	}
	return dst, nil
}

// kernelOnly is the error of what WFP tells callouts alone.
func kernelOnly(op string) error {
	return &OpError{Op: op, Err: errors.New("not on windows"), kind: ErrNotSupported, hint: "WFP tells it to callouts in the kernel alone"}
}

func queryOrigin(syscall.Conn) (Origin, error) { return Origin{}, kernelOnly(opQueryOrigin) }

func queryState(syscall.Conn) (State, int, error) { return 0, 0, kernelOnly(opQueryState) }

// describe reads what else there is to know of a connection with records.
func describe(c syscall.Conn) (dst netip.AddrPort, origin Origin, err error) {
	if dst, err = originalDestination(c); isUnknown(err) {
		err = nil
	}
	return dst, origin, err
}

func setRecords(ctx context.Context, raw syscall.RawConn, r Records) error {
	return opError(opSetRecords, rawControl(raw, func(s wfp.Handle) error { return wfp.Set(ctx, s, r) }))
}

// QueryEndpointHandle reads the handle by which WFP names a socket in its
// events and to its callouts. It exists on Windows alone.
func QueryEndpointHandle(c syscall.Conn) (handle uint64, err error) {
	err = control(c, func(s wfp.Handle) (err error) {
		handle, err = wfp.EndpointHandle(context.Background(), s)
		return err
	})
	return handle, opError(opQueryHandle, err)
}

// control runs f with the socket of a connection, which stays open meanwhile,
// and returns f's error or that of reaching the socket.
func control(c syscall.Conn, f func(wfp.Handle) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return rawControl(raw, f)
}

func rawControl(raw syscall.RawConn, f func(wfp.Handle) error) error {
	var ferr error
	if err := raw.Control(func(s uintptr) { ferr = f(wfp.Handle(s)) }); err != nil {
		return err
	}
	return ferr
}
