//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/policy"
)

// As in include/waybill.h.
const (
	solWaybill = 0x5742

	optRecords     = 1
	optOriginalDst = 3
	optOrigin      = 4
	optState       = 5

	recordsMax = 1024
	originSize = 64
	stateSize  = 8
)

const soOriginalDst = 80 // at level SOL_IP: linux/netfilter_ipv4.h

// The sections of the table: variants are compared within one.
const (
	sectionElsewhere = "elsewhere"
	sectionConnect   = "connect"
	sectionCycle     = "cycle"
	sectionForwarded = "forwarded"
	sectionEvents    = "events"
	sectionSet       = "set"
	sectionGet       = "get"
	sectionSend      = "send"
	sectionEcho      = "echo"   // and the size: sectionOf
	sectionStream    = "stream" // likewise
)

const (
	nameBare      = "nothing attached"
	nameElsewhere = "hooks that do nothing"

	nameDirect     = "direct"
	nameAgain      = "direct again: the noise"
	nameEmpty      = "hooks that do nothing"
	nameAttached   = "attached, not redirected"
	nameFull       = "… by the largest policy"
	nameInherited  = "of a proxy that inherits"
	nameRedirected = "redirected"
	nameUnread     = "redirected, no event read"
	nameRead       = "redirected, all events read"
	nameNftPass    = "nft in place, not redirected"
	nameNft        = "nft redirect"

	namePlainRelay = "through a plain relay"
	nameRelay      = "through waybill's relay"

	nameLate = "… that 512 have overtaken"

	nameTrivial    = "SO_KEEPALIVE in the scope"
	nameOriginal   = "original destination"
	nameNetfilter  = "SO_ORIGINAL_DST"
	nameNftAnswers = "SO_ORIGINAL_DST of nft"
	nameOrigin     = "origin"
	nameState      = "redirect state"
)

func nameRecords(hops int) string {
	if hops == 1 {
		return "records of 1 hop"
	}
	return fmt.Sprintf("records of %d hops", hops)
}

// measuredHops are the lengths of the records that are set and read.
var measuredHops = []int{1, 2, 8}

// variant is one thing to measure.
type variant struct {
	section string
	name    string
	worker  *worker
	order   order
	anyOf   []netip.AddrPort // opConnect: each call goes to one of these, by chance
}

// run makes the calls.
func (v variant) run(calls int) (reply, error) {
	o := v.order
	o.N = calls
	if len(v.anyOf) > 0 {
		o.To = make([]netip.AddrPort, warmUp+calls)
		for i := range o.To {
			o.To[i] = v.anyOf[rand.IntN(len(v.anyOf))]
		}
	}
	return v.worker.do(o)
}

func connectTo(name string, w *worker, to netip.AddrPort) variant {
	return variant{section: sectionConnect, name: name, worker: w, order: order{Op: opConnect, To: []netip.AddrPort{to}}}
}

func set(name string, w *worker, o option) variant {
	return variant{section: sectionSet, name: name, worker: w, order: order{Op: opSet, Option: o}}
}

func get(name string, w *worker, o option) variant {
	return variant{section: sectionGet, name: name, worker: w, order: order{Op: opGet, Option: o}}
}

var keepAlive = option{Level: unix.SOL_SOCKET, Name: unix.SO_KEEPALIVE, Value: []byte{1, 0, 0, 0}, Size: 4}

// phase is what is measured with one policy in force.
type phase struct {
	policy   policy.Policy
	variants []variant
}

func (s *scene) phases(f flows) []phase {
	return []phase{
		{s.smallPolicy(), s.small()},
		{fullPolicy(), s.full()},
		{s.forwardedPolicy(), s.forwarded()},
		{s.chainPolicy(), s.chain(f)},
	}
}

func (s *scene) small() []variant {
	variants := []variant{
		connectTo(nameDirect, s.direct, local(s.originPort)),
		connectTo(nameAgain, s.again, local(s.originPort)),
		connectTo(nameEmpty, s.empty, local(s.originPort)),
		connectTo(nameAttached, s.app, local(s.originPort)),
		connectTo(nameRedirected, s.app, unserved),
	}
	if s.nft != nil {
		variants = append(variants,
			connectTo(nameNftPass, s.nft, local(s.nftPort)),
			connectTo(nameNft, s.nft, unserved))
	}
	return variants
}

func (s *scene) full() []variant {
	return []variant{connectTo(nameFull, s.app, local(s.originPort))}
}

// forwarded are connections of a proxy that sets no records, to where one that
// it has accepted wanted to go.
func (s *scene) forwarded() []variant {
	variants := []variant{
		connectTo(nameDirect, s.direct, local(s.forwardedPort)),
		connectTo(nameInherited, s.proxies[0], local(s.forwardedPort)),
	}
	for i := range variants {
		variants[i].section = sectionForwarded
	}
	return variants
}

// chain uses that the proxy at place i has an accepted socket with i+1 hops.
func (s *scene) chain(f flows) []variant {
	first := s.proxies[0]
	variants := []variant{
		set(nameDirect, s.direct, keepAlive), set(nameAgain, s.again, keepAlive),
		set(nameEmpty, s.empty, keepAlive), set(nameTrivial, first, keepAlive),
		get(nameDirect, s.direct, keepAlive), get(nameAgain, s.again, keepAlive),
		get(nameEmpty, s.empty, keepAlive), get(nameTrivial, first, keepAlive),
		get(nameOriginal, first, option{Level: solWaybill, Name: optOriginalDst, Size: unix.SizeofSockaddrInet6}),
		get(nameNetfilter, first, originalDst),
		get(nameOrigin, first, option{Level: solWaybill, Name: optOrigin, Size: originSize}),
		get(nameState, first, option{Level: solWaybill, Name: optState, Size: stateSize}),
		set(nameLate, first, recordsOption(f.late)),
	}
	for _, hops := range measuredHops {
		w, o := s.proxies[hops-1], recordsOption(f.chain[hops-1])
		variants = append(variants, set(nameRecords(hops), w, o), get(nameRecords(hops), w, o))
	}
	if s.nft != nil {
		variants = append(variants, get(nameNftAnswers, s.nft, originalDst))
	}
	return variants
}

func recordsOption(records []byte) option {
	return option{Level: solWaybill, Name: optRecords, Value: records, Size: recordsMax}
}

var originalDst = option{Level: unix.SOL_IP, Name: soOriginalDst, Size: unix.SizeofSockaddrInet4}
