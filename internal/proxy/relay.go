package proxy

import (
	"net"
	"sync"
)

// relay copies both ways until both ends have finished. Both are *net.TCPConn
// and not wrapped, so that the kernel splices from one to the other.
func relay(a, b *net.TCPConn) {
	var back sync.WaitGroup
	back.Go(func() { copyHalf(a, b) })
	copyHalf(b, a)
	back.Wait()
}

// endInOrder takes back what makes a close a reset, of connections that are
// still open: both have ended in order.
func endInOrder(a, b *net.TCPConn) {
	a.SetLinger(-1)
	b.SetLinger(-1)
}

// copyHalf copies one direction and passes its end on: an orderly one as a
// half-close, so that the other direction can finish; a reset as the end of
// both connections.
func copyHalf(dst, src *net.TCPConn) { copyRest(dst, src, nil) }

// copyRest is copyHalf after some bytes have been copied, or err has ended it.
func copyRest(dst, src *net.TCPConn, err error) {
	if err == nil {
		err = copyAll(dst, src)
	}
	if err != nil {
		src.SetLinger(0)
		dst.SetLinger(0)
		src.Close()
		dst.Close()
		return
	}
	dst.CloseWrite()
}
