//go:build linux

package demo

import (
	"fmt"
	"io"
	"strings"
)

// Show returns a function for [Run] that writes each act for a person. The
// whole fits on one screen of 80 columns.
func Show(w io.Writer) func(act int, r *Result) {
	return func(act int, r *Result) {
		switch act {
		case 1:
			fmt.Fprintf(w, "Two proxies that have never heard of each other, in front of one program:\n\n")
			fmt.Fprintf(w, "  demo-app ──▶ adblock ──▶ dlp ──▶ origin %s\n", originAddr)
			r.Loop.show(w)
		case 2:
			r.Chain.show(w)
		case 3:
			r.DeadProxy.show(w)
		}
	}
}

func mark(ok bool) string {
	if ok {
		return "✓"
	}
	return "✗"
}

func (l *Loop) show(w io.Writer) {
	fmt.Fprintf(w, "\n1. The loop: records off, each proxy exempts only itself\n")
	fmt.Fprintf(w, "   %s GET http://%s/ ", mark(l.Arrived), origin4)
	if l.Arrived {
		fmt.Fprintf(w, "arrived after %d redirects\n", l.Hops)
		return
	}
	fmt.Fprintf(w, "never arrived: %d redirects in %.0f ms, until the proxies\n", l.Hops, float64(l.took.Microseconds())/1000)
	fmt.Fprintf(w, "     had %d connections each and took no more\n", maxConns)
	if len(l.path) > 4 {
		fmt.Fprintf(w, "     demo-app ▶ %s ▶ …\n", strings.Join(l.path[:4], " ▶ "))
	}
}

func (c *Chain) show(w io.Writer) {
	fmt.Fprintf(w, "\n2. The cure: the same proxies, the same request, records on\n")
	fmt.Fprintf(w, "   %s GET http://%s/\n", mark(c.Arrived), origin4)
	fmt.Fprintf(w, "     %-3s%-9s%-21s%-17s%-19s%5s\n", "#", "proxy", "original destination", "original process", "state", "added")
	for _, h := range c.detail {
		fmt.Fprintf(w, "     %-3d%-9s%-21s%-17s%-19s%4.0fµs\n", h.Hops, h.Proxy, h.Dst, h.Process, h.State, h.AddedUS)
		if h.Err != "" {
			fmt.Fprintf(w, "        %s\n", h.Err)
		}
	}
	fmt.Fprintf(w, "     the program's getpeername(): %s\n", c.ClientPeer)
	for _, f := range c.families {
		fmt.Fprintf(w, "   %s the same over %-11s  through %s\n", mark(f.arrived), f.name, strings.Join(f.hops, ", "))
	}
}

func (d *DeadProxy) show(w io.Writer) {
	fmt.Fprintf(w, "\n3. A dead proxy: kill -9 %d (adblock), which is to be bypassed when down\n", d.pid)
	fmt.Fprintf(w, "   %s %d requests, %d failed, through %s\n", mark(d.Arrived), d.requests, d.failed, strings.Join(d.Hops, ", "))
}

// Conclude writes the last line.
func (r *Result) Conclude(w io.Writer) {
	if r.Held() {
		fmt.Fprintf(w, "\n%d proxies, %d hops, 0 loops\n", len(wantChain), len(r.Chain.Hops))
		return
	}
	fmt.Fprintf(w, "\nsomething did not go as waybill promises: see the lines above\n")
}
