//go:build linux

package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a connection, as the kernel noted it
// at its connect().
type Peer struct {
	PID    int    // 0: it is in a pid namespace that can not be seen from here
	UID    uint32 // effective, as GID
	GID    uint32
	Groups []uint32 // supplementary

	pidfd *os.File // nil: it had ended already
}

// PeerOf returns the process that connected to conn.
func PeerOf(conn *net.UnixConn) (*Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var p Peer
	if controlErr := raw.Control(func(fd uintptr) { err = p.ask(int(fd)) }); controlErr != nil {
		err = controlErr
	}
	if err != nil {
		return nil, fmt.Errorf("identify peer: %w", err)
	}
	return &p, nil
}

func (p *Peer) ask(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	p.PID, p.UID, p.GID = int(cred.Pid), cred.Uid, cred.Gid
	if p.Groups, err = peerGroups(fd); err != nil {
		return err
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		// Before Linux 6.5. Between connect() and here the process can have
		// ended and its number be another's.
		pidfd, err = unix.PidfdOpen(p.PID, 0)
	}
	if err == nil {
		unix.CloseOnExec(pidfd)
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	return nil
}

// peerGroups asks the socket: /proc could answer for another process.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case syscall.ERANGE:
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// In reports whether the peer is in a group.
func (p *Peer) In(gid uint32) bool { return p.GID == gid || slices.Contains(p.Groups, gid) }

// Check returns an error unless PID still means the process that connected.
// Done after something has been done to PID, it says whether the right process
// met with it.
func (p *Peer) Check() error {
	if p.pidfd == nil || p.PID == 0 {
		return fmt.Errorf("identify peer: process %d is not there", p.PID)
	}
	// EPERM would say that it is there.
	if err := unix.PidfdSendSignal(int(p.pidfd.Fd()), 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("identify peer: process %d: %w", p.PID, err)
	}
	return nil
}

// Close frees what Check needs.
func (p *Peer) Close() error {
	if p.pidfd == nil {
		return nil
	}
	return p.pidfd.Close()
}
