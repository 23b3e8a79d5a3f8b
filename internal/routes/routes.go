//go:build linux

// Package routes tells an engine what the kernel would do about what leaves
// for each destination: the source address that it would choose, or the error
// for want of a route. No BPF hook of a connect() can ask that, so it is asked
// beforehand, for every prefix that some route or rule knows, and again when
// one of them changes.
package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	rtnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/engine"
)

// Follower follows the routes of one network namespace. Its zero value is not
// ready: see [New].
type Follower struct {
	engine *engine.Engine
	netns  uint64
	asks   *rtnetlink.Handle
	hears  *netlink.Conn
}

const (
	// What it tells is out of date this long after a follower was killed.
	validity = 30 * time.Second
	// It tells again before that, and looks again: a full queue of messages is
	// not the only thing that can be missed.
	interval = 10 * time.Second
	// The start of a network is a burst of messages.
	settle = 20 * time.Millisecond
)

// groups are those of messages about what a choice depends on. A link that
// goes down takes IPv4 routes with it without a word about them.
const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEXTHOP-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV4_RULE-1) |
	1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// New makes a follower of the network namespace of the calling thread, and
// tells the engine how its routes are now. The caller runs it, closes it, and
// closes the engine after it.
func New(e *engine.Engine) (*Follower, error) {
	f := &Follower{engine: e}
	err := f.open()
	if err == nil {
		err = f.tell()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("follow routes: %w", err), f.Close())
	}
	return f, nil
}

func (f *Follower) open() (err error) {
	if f.netns, err = engine.NetNSCookie(); err != nil {
		return err
	}
	// First listen, then ask: nothing happens unheard in between.
	if f.hears, err = netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups}); err != nil {
		return err
	}
	f.asks, err = rtnetlink.NewHandle(unix.NETLINK_ROUTE)
	return err
}

// Run tells the engine of every change. It returns when ctx ends; the engine
// then knows nothing of routes any more. What goes wrong is reported once, and
// meanwhile the engine knows nothing either.
func (f *Follower) Run(ctx context.Context, report func(error)) {
	defer f.engine.SetSources(f.netns, nil, 0)
	defer context.AfterFunc(ctx, func() { f.hears.SetReadDeadline(time.Now()) })()
	pause := settle
	last := ""
	for ctx.Err() == nil {
		f.wait(ctx, pause)
		start := time.Now()
		err := f.tell()
		if err != nil && err.Error() != last {
			report(fmt.Errorf("follow routes: %w", err))
		}
		last = fmt.Sprint(err)
		// Who has many routes, and changes them all the time, pays a tenth of a CPU for it.
		pause = max(settle, 10*time.Since(start))
	}
}

// Close lets go of the sockets.
func (f *Follower) Close() error {
	if f.asks != nil {
		f.asks.Close()
	}
	if f.hears == nil {
		return nil
	}
	return f.hears.Close()
}

// wait waits for a message, and then a moment for others; or until it is time
// to tell again.
func (f *Follower) wait(ctx context.Context, pause time.Duration) {
	if !f.hear(ctx, time.Now().Add(interval)) {
		return
	}
	for deadline := time.Now().Add(pause); f.hear(ctx, deadline); {
	}
}

// hear reports whether a message came before the deadline, and before ctx
// ended: that sets a deadline of its own.
func (f *Follower) hear(ctx context.Context, deadline time.Time) bool {
	f.hears.SetReadDeadline(deadline)
	if ctx.Err() != nil {
		return false
	}
	_, err := f.hears.Receive()
	if err == nil || errors.Is(err, unix.ENOBUFS) { // the queue was full: there were messages
		return true
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		select { // deaf, it still looks from time to time
		case <-time.After(time.Until(deadline)):
		case <-ctx.Done():
		}
	}
	return false
}

// tell tells the engine how the routes are now; nothing, if that can not be
// found out.
func (f *Follower) tell() error {
	sources, err := f.read()
	if err != nil {
		return errors.Join(err, f.engine.SetSources(f.netns, nil, 0))
	}
	return f.engine.SetSources(f.netns, sources, validity)
}

// read asks the kernel about each prefix.
func (f *Follower) read() (map[netip.Prefix]engine.Source, error) {
	prefixes, err := f.prefixes()
	if err != nil {
		return nil, err
	}
	sources := make(map[netip.Prefix]engine.Source)
	for prefix, sample := range samples(prefixes) {
		source := f.ask(sample)
		if source.Addr == sample && !prefix.IsSingleIP() {
			source.Addr = unspecified(sample) // a prefix that is local as a whole
		}
		sources[prefix] = source
	}
	for _, prefix := range unasked {
		sources[prefix] = engine.Source{}
	}
	return sources, nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// ask asks as a connect() would that leaves everything to the kernel.
func (f *Follower) ask(dst netip.Addr) engine.Source {
	found, err := f.asks.RouteGet(dst.AsSlice())
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		switch errno {
		case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL: // no route, or one that says so
			return engine.Source{Err: errno}
		}
	}
	if err != nil || len(found) == 0 {
		return engine.Source{}
	}
	addr, _ := netip.AddrFromSlice(found[0].Src)
	return engine.Source{Addr: addr.Unmap()}
}
