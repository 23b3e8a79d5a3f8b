//go:build linux

package main

import "net/netip"

// Listeners are on 127.0.0.1. What is to be redirected goes to the block of
// RFC 2544, of which our network namespaces have the upper half on their
// loopback device: nobody serves it, so a connection there is refused unless it
// is redirected, and none goes wrong unseen. 127.0.0.0/8 would not do: a hook
// that finds no listener there leaves the connection to the kernel.
var (
	loopback = netip.MustParseAddr("127.0.0.1")
	unserved = netip.MustParseAddrPort("198.19.255.1:9")
	held     = netip.MustParseAddrPort("198.19.255.1:10") // by a worker that keeps what it accepts
	stray    = netip.MustParseAddrPort("198.18.0.7:80")   // without a route
)

var (
	loopbacks   = netip.MustParsePrefix("127.0.0.0/8")
	nowhere     = netip.MustParsePrefix("198.18.0.0/16")
	unservedNet = netip.MustParsePrefix("198.19.0.0/16")
	// everywhere is all that the bench connects to. Loopback is redirected
	// only if a prefix in that space names it.
	everywhere = []netip.Prefix{loopbacks, nowhere, unservedNet}
)

func local(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback, port) }
