//go:build linux

package supervise

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

const listenPoll = 20 * time.Millisecond

// WaitListening waits until the program listens on all of the addresses. It
// is an error, with what the program printed last, if it ends before or does
// not until ctx ends.
func (p *Process) WaitListening(ctx context.Context, addresses ...netip.AddrPort) error {
	return p.wait(ctx, addresses, IsListening)
}

// WaitReceiving is WaitListening for UDP.
func (p *Process) WaitReceiving(ctx context.Context, addresses ...netip.AddrPort) error {
	return p.wait(ctx, addresses, IsReceiving)
}

func (p *Process) wait(ctx context.Context, addresses []netip.AddrPort, isOpen func(pid int, a netip.AddrPort) (bool, error)) error {
	for _, a := range addresses {
		for {
			s := p.State()
			if s.LastExit != "" {
				return fmt.Errorf("start %s: it ended (%s) before it listened on %s%s", p.command.Name, s.LastExit, a, p.said())
			}
			listening, err := isOpen(s.PID, a)
			if err != nil {
				return fmt.Errorf("start %s: %w", p.command.Name, err)
			}
			if listening && ctx.Err() == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("start %s: it does not listen on %s: %w%s", p.command.Name, a, context.Cause(ctx), p.said())
			case <-time.After(listenPoll):
			}
		}
	}
	return nil
}

// said is the program's last words, for an error.
func (p *Process) said() string {
	lines := p.Tail()
	if len(lines) == 0 {
		return "; it printed nothing"
	}
	return "; it printed:\n    " + strings.Join(lines, "\n    ")
}

// IsListening reports whether anybody listens on an address, or on all addresses
// and its port. It asks the kernel's table, in the network namespace of pid. To
// connect instead would show the proxy a connection that means nothing.
func IsListening(pid int, a netip.AddrPort) (bool, error) {
	if a.Addr().Is4() {
		if listening, err := isListed(pid, "tcp", tcpListens, a); listening || err != nil {
			return listening, err
		}
	}
	return isListed(pid, "tcp6", tcpListens, a) // where [::] takes IPv4 as well, if it was not told otherwise
}

// IsReceiving is IsListening for UDP.
func IsReceiving(pid int, a netip.AddrPort) (bool, error) {
	if a.Addr().Is4() {
		if receiving, err := isListed(pid, "udp", udpUnconnected, a); receiving || err != nil {
			return receiving, err
		}
	}
	return isListed(pid, "udp6", udpUnconnected, a)
}

// States of sockets in the kernel's tables.
const (
	tcpListens     = "0A"
	udpUnconnected = "07"
)

func isListed(pid int, file, state string, a netip.AddrPort) (bool, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, file))
	if os.IsNotExist(err) {
		return false, nil // it has just ended; its state will say so
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != state {
			if state == tcpListens {
				break // the kernel shows the listening sockets first: tcp_seek_last_pos
			}
			continue
		}
		if got, err := parseProcAddr(fields[1]); err != nil {
			return false, err
		} else if got.Port() == a.Port() && got.Addr().Unmap() == a.Addr() || got.Port() == a.Port() && got.Addr().IsUnspecified() {
			return true, nil
		}
	}
	return false, lines.Err()
}

// parseProcAddr reads an address as /proc/net/tcp shows it: 32-bit words as
// numbers of this machine, in hexadecimal.
func parseProcAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("read the address %q of a socket", s)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the port of a socket: %w", err)
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), nil
}
