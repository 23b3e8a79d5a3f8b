//go:build linux

package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Server answers on a Unix socket, and on a loopback port for metrics alone.
type Server struct {
	Backend Backend
	Version string
	Group   string // whose members may do something; empty: "waybill"

	gid     uint32 // of Group
	grouped bool   // Group exists
}

const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	answerTimeout = 30 * time.Second // for a client to take an answer, or a line of one
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 5 * time.Second
	maxHeader     = 64 << 10
	maxBody       = 16 << 20 // a policy may have as much
)

// Serve answers those who connect to l, a listener of Unix sockets, until ctx
// ends. It closes l. What is streamed then ends, and runs do.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.findGroup()
	return servePeers(ctx, l, s.handler())
}

func servePeers(ctx context.Context, l net.Listener, h http.Handler) error {
	return serve(ctx, &peerListener{Listener: l, open: make(map[uint32]int)}, h)
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := server.Shutdown(last)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		stopped <- err
	})
	err := server.Serve(l)
	if stop() {
		return errors.Join(err, server.Close()) // the listener broke
	}
	return <-stopped
}

type peerKey struct{}

// withPeer makes the peer of a connection that of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*peerConn); ok {
		ctx = context.WithValue(ctx, peerKey{}, c.peer)
	}
	return ctx
}
