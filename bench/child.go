//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// childArg is the hidden first argument: what follows is the role of a worker
// and the CPU to stay on. A worker is a process of its own because a socket
// belongs to the cgroup of the process that creates it.
const childArg = "bench-child"

const (
	roleWorker     = "worker"
	roleAcceptor   = "acceptor"
	roleSink       = "sink"        // takes datagrams and says nothing
	roleEcho       = "echo"        // answers them, at the address that follows
	rolePlainRelay = "plain-relay" // relays them to the address that follows
	roleRelay      = "relay"       // is waybill's own
)

// anyCPU is in the place of a CPU: the kernel chooses.
const anyCPU = -1

func runChild(args []string) {
	// Namespace, privileges and CPU are properties of the thread.
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // a few megabytes in all, and no pauses
	if err := childMain(args); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func childMain(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("start worker: arguments %q, want a role and a CPU", args)
	}
	cpu, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("start worker: read CPU: %w", err)
	}
	if cpu != anyCPU {
		if err := pin(cpu); err != nil {
			return err
		}
	}
	switch role := args[0]; role {
	case roleAcceptor:
		return drain()
	case roleSink:
		return drainDatagrams()
	case roleEcho, rolePlainRelay, roleRelay:
		return serveDatagrams(role, args[2:])
	}
	return (&child{}).serve(os.Stdin, os.Stdout)
}

// child is the worker's side: it does what it is told, one order at a time.
type child struct {
	listener int
	accepted int // the socket that opGet asks
	held     []int
	acceptor *worker                // it lives as long as its pipe is open
	flows    map[netip.AddrPort]int // sockets of UDP by destination
	echoes   uint64                 // a number for each
}

// serve ends when the bench does, however that ends: then its end of the
// pipe is closed.
func (c *child) serve(in io.Reader, out io.Writer) error {
	orders, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		r, err := c.do(o)
		if err != nil {
			r.Error = err.Error()
		}
		if err := replies.Encode(r); err != nil {
			return fmt.Errorf("write reply: %w", err)
		}
	}
}

func (c *child) do(o order) (r reply, err error) {
	switch o.Op {
	case opDrop:
		err = dropPrivileges()
	case opListen:
		c.listener, r.Port, err = listen(0)
	case opNft:
		r.Port, err = c.makePeer(o.CPU)
	case opConnect:
		r.Samples, r.Cycles, err = timeConnects(o.To, o.N)
	case opStray:
		r.Samples, err = timeStrays(o.To[0], o.N)
	case opEcho:
		r.Samples, err = c.timeEchoes(o)
	case opStream:
		r.Samples, err = c.timeStream(o)
	case opSend:
		r.Samples, err = c.timeSends(o)
	case opDial:
		err = c.dial(o)
	case opAccept:
		r.Records, err = c.accept()
	case opSet:
		r.Samples, err = timeSets(o.Option, o.N)
	case opGet:
		r.Samples, err = timeGets(c.accepted, o.Option, o.N)
	case opRelease:
		c.release()
	default:
		err = fmt.Errorf("read order: unknown operation %q", o.Op)
	}
	return r, err
}

// dropPrivileges makes root an ordinary user to the hooks: a proxy needs no
// privilege, and for one that has it SET takes a short cut.
func dropPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	return nil
}

// makePeer fills the worker's network namespace, which the bench has just
// made for it. The acceptor ends with the worker: it holds its pipe.
func (c *child) makePeer(acceptorCPU int) (uint16, error) {
	if err := setUpLoopback(); err != nil {
		return 0, err
	}
	acceptor, err := start(commandFor(context.Background(), roleAcceptor, acceptorCPU), "nft acceptor")
	if err != nil {
		return 0, err
	}
	r, err := acceptor.read()
	if err != nil {
		return 0, err
	}
	c.acceptor = acceptor
	var own uint16
	if c.listener, own, err = listen(0); err != nil {
		return 0, err
	}
	return r.Port, redirectWithNft(r.Port, own)
}
