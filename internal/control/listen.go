//go:build linux

package control

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Listen makes the socket: for root, and for members of the group if it
// exists. Another that nobody listens on any more is replaced.
func (s *Server) Listen(path string) (net.Listener, error) {
	s.findGroup()
	return listen(path, s.grant)
}

// listen makes a socket that has its rights before it has its name.
func listen(path string, grant func(path string) error) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := checkFree(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	unnamed := path + ".new"
	if err := os.Remove(unnamed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: unnamed})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	err = grant(unnamed)
	if err == nil {
		err = os.Rename(unnamed, path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, errors.Join(err, l.Close(), os.Remove(unnamed)))
	}
	made, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, errors.Join(err, l.Close()))
	}
	return &namedListener{UnixListener: l, path: path, made: made}, nil
}

// checkFree makes sure that nothing of use is replaced.
func checkFree(path string) error {
	old, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if old.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is not a socket is there")
	}
	if c, err := net.Dial("unix", path); err == nil {
		return errors.Join(errors.New("another daemon does"), c.Close())
	}
	return nil
}

func (s *Server) grant(path string) error {
	mode, gid := fs.FileMode(0o600), -1
	if s.grouped {
		mode, gid = 0o660, int(s.gid)
	}
	return errors.Join(os.Chown(path, -1, gid), os.Chmod(path, mode))
}

// findGroup looks the group up. Without it root is alone.
func (s *Server) findGroup() {
	g, err := user.LookupGroup(cmp.Or(s.Group, "waybill"))
	if err != nil {
		return
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	s.gid, s.grouped = uint32(gid), err == nil
}

// namedListener takes its name away when it is closed, unless another has it.
type namedListener struct {
	*net.UnixListener
	path string
	made fs.FileInfo
}

func (l *namedListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.made) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// maxOpen bounds the connections of one user, so that nobody can keep others
// out. Root is not bounded.
const maxOpen = 64

// peerListener knows who connects.
type peerListener struct {
	net.Listener

	mu   sync.Mutex
	open map[uint32]int // connections, by user
}

type peerConn struct {
	net.Conn
	peer *Peer
	free func() // once
}

func (c *peerConn) Close() error {
	c.free()
	return c.Conn.Close()
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn, ok := c.(*net.UnixConn)
		if !ok {
			return nil, errors.Join(fmt.Errorf("serve %T: not a Unix socket", c), c.Close())
		}
		peer, err := PeerOf(conn)
		if err != nil {
			c.Close()
			continue
		}
		if l.enter(peer.UID) {
			return &peerConn{c, peer, sync.OnceFunc(func() { l.leave(peer) })}, nil
		}
		peer.Close()
		refuse(c)
	}
}

func (l *peerListener) enter(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 && l.open[uid] >= maxOpen {
		return false
	}
	l.open[uid]++
	return true
}

func (l *peerListener) leave(p *Peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[p.UID]--; l.open[p.UID] == 0 {
		delete(l.open, p.UID)
	}
	p.Close()
}

// refuse answers a request that it does not read: the connection is new, so
// that the answer finds room in its buffer.
func refuse(c net.Conn) {
	body := fmt.Sprintf(`{"error": "you have %d connections open", "hint": "close some"}`+"\n", maxOpen)
	c.SetWriteDeadline(time.Now().Add(time.Second))
	io.WriteString(c, fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable), len(body), body))
	c.Close()
}
