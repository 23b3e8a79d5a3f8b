package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/pflag"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/domain"
)

const aboutProxy = `Run waybill's own proxy: it passes on what is redirected to it, and prints a
line for each connection, each flow of UDP and each question of DNS. An address
is of TCP, or of UDP with "udp:" before it.

It needs no rights but to run in its provider's processes: the policy starts it
as a user without rights, or "waybill run --via inspect" does.

What goes to port 53 is taken for DNS. Questions about names that are blocked
are answered in the place of the resolver, and QUIC to them is refused, by the
name that the client shows. A name in a list is the name itself; *.example.com
is everything below. Lists may be in the form of a hosts file.

Which addresses names lead to it tells the daemon, for filters that ask for a
domain, and for "waybill flows" and "waybill trace".`

const proxyExamples = `  waybill proxy 127.0.0.1:7001 '[::1]:7001' udp:127.0.0.1:7001 'udp:[::1]:7001'
  waybill proxy --block /etc/waybill/ads.txt --answer zero udp:127.0.0.1:7001`

// namesFlag says whom to tell names.
type namesFlag struct{ socket string }

func (f *namesFlag) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.socket, "names", "", "`path` of the socket on which names are told (default: $"+control.NamesVariable+", or the daemon's)")
}

// tell is for a daemon that may come and go: that there is none is no error,
// unless one was named. Nor is a name that a program asked for and that is none
// of a host: no filter can ask for it. Other trouble is said once.
func (f *namesFlag) tell(stderr io.Writer) func(context.Context, dns.Resolved) {
	socket := cmp.Or(f.socket, os.Getenv(control.NamesVariable), control.DefaultNamesSocket)
	client := control.NewNamesClient(socket)
	var once sync.Once
	return func(ctx context.Context, found dns.Resolved) {
		if _, err := domain.ParseName(found.Name); err != nil {
			return
		}
		err := client.Tell(ctx, found)
		if err != nil && (f.socket != "" || !errors.Is(err, control.ErrNoDaemon)) {
			once.Do(func() { fmt.Fprintf(stderr, "waybill: names are not told: %v\n", err) })
		}
	}
}
