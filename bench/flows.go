//go:build linux

package main

import (
	"fmt"
	"net/netip"

	"github.com/waybill-net/waybill/internal/engine"
)

// window is WB_WINDOW of bpf/candidate.h.
const window = 512

// flows are connections that stay open for as long as the programs are loaded.
type flows struct {
	chain [][]byte // the records that each proxy found of the flow through all
	late  []byte   // and those of a flow that window others have overtaken
}

// makeFlows ends with the flow through all proxies: opGet asks the socket that
// was accepted last.
func (s *scene) makeFlows(e *engine.Engine) (f flows, err error) {
	for _, w := range append([]*worker{s.app}, s.proxies...) {
		if _, err := w.do(order{Op: opRelease}); err != nil {
			return f, err
		}
	}
	if err := s.makeForwarded(e); err != nil {
		return f, fmt.Errorf("make a flow to inherit: %w", err)
	}
	if f.late, err = s.makeLate(e); err != nil {
		return f, fmt.Errorf("make a late flow: %w", err)
	}
	if f.chain, err = s.makeChain(e); err != nil {
		return f, fmt.Errorf("make a chain: %w", err)
	}
	return f, nil
}

// makeForwarded sends a connection to the first proxy that it can go on with,
// without records.
func (s *scene) makeForwarded(e *engine.Engine) error {
	if err := e.Apply(s.forwardedPolicy()); err != nil {
		return err
	}
	return pass(s.app, order{Op: opDial, To: []netip.AddrPort{local(s.forwardedPort)}}, s.proxies[0])
}

// makeLate leaves the first proxy a flow that it has not gone on with while
// so many others came to the same destination that a SET looks for it in vain.
func (s *scene) makeLate(e *engine.Engine) ([]byte, error) {
	to := []netip.AddrPort{held}
	if err := e.Apply(s.onePolicy(held, s.proxyPorts[0])); err != nil {
		return nil, err
	}
	if _, err := s.app.do(order{Op: opDial, To: to}); err != nil {
		return nil, err
	}
	r, err := s.proxies[0].do(order{Op: opAccept})
	if err != nil {
		return nil, err
	}
	if err := e.Apply(s.onePolicy(held, s.proxyPort)); err != nil {
		return nil, err
	}
	_, err = s.app.do(order{Op: opConnect, To: to, N: window})
	return r.Records, err
}

// makeChain sends one connection through all proxies, and returns the records
// that each found. The last one sets them, too: no SET that is measured is to
// look for a flow that waits.
func (s *scene) makeChain(e *engine.Engine) ([][]byte, error) {
	if err := e.Apply(s.chainPolicy()); err != nil {
		return nil, err
	}
	var chain [][]byte
	from, records := s.app, []byte(nil)
	for i, to := range s.proxies {
		if _, err := from.do(order{Op: opDial, To: []netip.AddrPort{unserved}, Records: records}); err != nil {
			return nil, err
		}
		r, err := to.do(order{Op: opAccept})
		if err != nil {
			return nil, err
		}
		if len(r.Records) <= len(records) {
			return nil, fmt.Errorf("proxy %d got %d bytes of records, the one before it %d", i+1, len(r.Records), len(records))
		}
		from, records = to, r.Records
		chain = append(chain, records)
	}
	_, err := from.do(order{Op: opSet, Option: recordsOption(records)})
	return chain, err
}
