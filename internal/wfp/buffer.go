package wfp

import (
	"context"
	"errors"
	"syscall"
	"unsafe"
)

const (
	// firstSize holds all records that have been seen: 1 KiB was too short for
	// Envoy, Microsoft's sample has 8.
	firstSize = 8 << 10
	maxSize   = 64 << 10
)

// Query asks for records or for the context. The documentation has three ways
// to say that a buffer is too short, and clients have met a fourth; all of them
// are understood. What is longer than 64 KiB is refused with the last of them.
func Query(ctx context.Context, s Socket, code Code) ([]byte, error) {
	for size := firstSize; ; {
		out := aligned(size)
		n, err := request(ctx, s, code, nil, out)
		if err == nil {
			return out[:min(n, size)], nil
		}
		next := grow(size, n, err)
		if next <= size {
			return nil, err
		}
		size = next
	}
}

// grow returns the size to try next, or 0 if the answer is final. n is the size
// that was asked for, or some other number, or 0: the documentation
// contradicts itself.
func grow(size, n int, err error) int {
	switch {
	case !saysTooShort(n, err), n > maxSize:
		return 0
	case n > size:
		return n
	}
	return min(2*size, maxSize)
}

func saysTooShort(n int, err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case ErrInsufficientBuffer, ErrMoreData, EFAULT, ENOBUFS:
		return true
	case EINVAL:
		return n > 0 // without a size it means something else
	}
	return false
}

// Set puts records on a socket. There is no way to set none: Winsock would be
// asked to read from no buffer.
func Set(ctx context.Context, s Socket, records []byte) error {
	if len(records) == 0 {
		return EINVAL
	}
	in := aligned(len(records))
	copy(in, records)
	// The number of bytes returned has no meaning here, whatever it is.
	_, err := request(ctx, s, SetRecords, in, nil)
	return err
}

// EndpointHandle asks for the handle by which WFP's events name a socket.
func EndpointHandle(ctx context.Context, s Socket) (uint64, error) {
	out := make([]uint64, 1)
	n, err := request(ctx, s, QueryEndpointHandle, nil, bytesOf(out))
	if err == nil && n < 8 {
		return 0, EINVAL
	}
	return out[0], err
}

// aligned returns a buffer that begins where a pointer may: some requests fail
// with WSAEFAULT otherwise.
func aligned(size int) []byte { return bytesOf(make([]uint64, (size+7)/8))[:size] }

func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 8*len(words))
}
