package datagram

import "golang.org/x/sys/unix"

// maxErrors in a row are of datagrams: each is told once. More are of the
// socket, as where a seccomp filter refuses the call.
const maxErrors = 64

// Read hands over what comes until handle returns false, the deadline of the
// socket passes, or it is closed. The messages are valid until handle returns.
// What ICMP has told of earlier datagrams goes to failed; it ends nothing.
func (s *Socket) Read(handle func([]Message) bool, failed func(error)) error {
	var (
		last   error
		broken bool
	)
	err := s.raw.Read(func(fd uintptr) bool {
		b := batches.Get().(*batch)
		defer batches.Put(b)
		for errs := 0; errs < maxErrors; {
			messages, errno := b.receive(fd, !s.remote.IsValid())
			switch errno {
			case 0:
			case unix.EAGAIN:
				return false
			case unix.EINTR:
				continue
			default:
				last = errno
				failed(errno)
				errs++
				continue
			}
			errs = 0
			if !handle(messages) {
				return true
			}
			if len(messages) < batchSize {
				// The kernel has just seen that no more waits. What comes from
				// now on wakes us up: the poller is told of each datagram.
				return false
			}
		}
		broken = true
		return true
	})
	if err == nil && broken {
		return last
	}
	return err
}
