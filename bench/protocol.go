//go:build linux

package main

import "net/netip"

// What the bench and its workers say to each other: one JSON object per line,
// an order to the worker's standard input and its reply from standard output.

const (
	opDrop    = "drop"    // give up all privileges
	opListen  = "listen"  // and answer the port
	opNft     = "nft"     // make a namespace with an nft redirect and answer its acceptor's port
	opConnect = "connect" // time N times socket(), connect(), close(), with To in turn
	opStray   = "stray"   // time N times a connect() that finds no route to To[0]
	opSend    = "send"    // time N times sendto() of Size bytes to To[0]
	opEcho    = "echo"    // time N times that Size bytes go to To[0] and come back
	opStream  = "stream"  // the same with many at once: the time of each
	opDial    = "dial"    // connect to To[0], with records if there are any, and keep the socket
	opAccept  = "accept"  // keep the next accepted socket and answer its records
	opSet     = "set"     // time N times setsockopt() of Option, each on a fresh socket
	opGet     = "get"     // time N times getsockopt() of Option on the socket kept last
	opRelease = "release" // close the sockets that were kept
)

type order struct {
	Op      string
	To      []netip.AddrPort
	N       int
	Size    int
	CPU     int // opNft: for the acceptor
	Records []byte
	Option  option
}

// option is one socket option, with the value to set or the size to ask for.
type option struct {
	Level, Name int
	Value       []byte
	Size        int
}

type reply struct {
	Error   string
	Port    uint16
	Records []byte
	Samples []float64 // nanoseconds per call
	Cycles  []float64 // opConnect: of socket(), connect() and close() together
}
