//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/proxy"
)

// streamWindow is how many datagrams of a stream are on their way at once.
const streamWindow = 32

// longestDatagram of those that are measured.
const longestDatagram = 1400

// serveDatagrams plays a role that takes UDP, at a port of the kernel's choice.
// That of a relay is one of an ordinary program of Go: all threads, and a
// collector of garbage.
func serveDatagrams(role string, args []string) error {
	at := loopback
	if role == roleEcho {
		at = netip.MustParseAddr(args[0]) // one, and not all: its answers are to come from there
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: at.AsSlice()})
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	if err := json.NewEncoder(os.Stdout).Encode(reply{Port: port}); err != nil {
		return fmt.Errorf("write port: %w", err)
	}
	go exitWithBench()
	if role == roleEcho {
		return echo(c)
	}
	runtime.UnlockOSThread()
	debug.SetGCPercent(100)
	if role == rolePlainRelay {
		return relayPlainly(c, netip.MustParseAddrPort(args[0]))
	}
	l, err := waybill.NewPacketListener(c)
	if err != nil {
		return err
	}
	return (&proxy.Packets{}).Serve(context.Background(), l)
}

// drainDatagrams takes datagrams as drain does connections.
func drainDatagrams() error {
	fd, err := openDatagrams(netip.AddrPort{})
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback.As4()}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(reply{Port: uint16(name.(*unix.SockaddrInet4).Port)}); err != nil {
		return fmt.Errorf("write port: %w", err)
	}
	go exitWithBench()
	buf := make([]byte, longestDatagram)
	for {
		_, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			time.Sleep(drainPause)
		} else if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("read: %w", err)
		}
	}
}

// echo answers with what it hears.
func echo(c *net.UDPConn) error {
	p := ipv4.NewPacketConn(c)
	messages := make([]ipv4.Message, streamWindow)
	for i := range messages {
		messages[i].Buffers = [][]byte{nil}
	}
	bufs := make([]byte, streamWindow*longestDatagram)
	for {
		for i := range messages {
			messages[i].Buffers[0] = bufs[i*longestDatagram:][:longestDatagram]
		}
		n, err := p.ReadBatch(messages, 0)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		for i := range messages[:n] {
			messages[i].Buffers[0] = messages[i].Buffers[0][:messages[i].N]
		}
		for sent := 0; sent < n; {
			m, err := p.WriteBatch(messages[sent:n], 0)
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			sent += m
		}
	}
}

// relayPlainly is the peer of our relay: what a program does that takes UDP
// from many clients for one destination, with Go's own calls alone.
func relayPlainly(c *net.UDPConn, to netip.AddrPort) error {
	flows := make(map[netip.AddrPort]*net.UDPConn)
	buf := make([]byte, 65535)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		upstream := flows[from]
		if upstream == nil {
			if upstream, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to)); err != nil {
				return fmt.Errorf("dial: %w", err)
			}
			flows[from] = upstream
			go relayBack(c, from, upstream)
		}
		upstream.Write(buf[:n])
	}
}

func relayBack(c *net.UDPConn, to netip.AddrPort, upstream *net.UDPConn) {
	buf := make([]byte, 65535)
	for {
		n, err := upstream.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			c.WriteToUDPAddrPort(buf[:n], to)
		}
	}
}
