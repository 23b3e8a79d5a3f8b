package main

import (
	"context"
	"io"

	"github.com/spf13/pflag"

	"github.com/waybill-net/waybill/internal/dns"
)

const aboutProxy = `Run waybill's own proxy, for a redirector that sends connections to it: it
passes them on with their redirect records, and prints a line for each
connection, each flow of UDP and each question of DNS. An address is of TCP, or
of UDP with "udp:" before it.

It must run elevated: Windows lets nobody else set redirect records. Where a
connection was going it reads from the redirect context, if that has the form
of Microsoft's sample, or from SO_ORIGINAL_DST.

What goes to port 53 is taken for DNS. Questions about names that are blocked
are answered in the place of the resolver, and QUIC to them is refused, by the
name that the client shows. A name in a list is the name itself; *.example.com
is everything below. Lists may be in the form of a hosts file.`

const proxyExamples = `  waybill proxy 127.0.0.1:7001 [::1]:7001 udp:127.0.0.1:7001 udp:[::1]:7001
  waybill proxy --block ads.txt --answer zero 127.0.0.1:7001`

// namesFlag is none: there is no daemon to be told names.
type namesFlag struct{}

func (namesFlag) add(*pflag.FlagSet) {}

func (namesFlag) tell(io.Writer) func(context.Context, dns.Resolved) { return nil }
