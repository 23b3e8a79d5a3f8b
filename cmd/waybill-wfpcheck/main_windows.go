// The command waybill-wfpcheck finds out what Windows does where its
// documentation says nothing or contradicts itself. It needs a redirector that
// sends connections for -origin to -listen: Microsoft's WFPSampler, eBPF for
// Windows, or a driver of one's own. It prints a report, for an issue.
//
//	waybill-wfpcheck -listen 127.0.0.1:7001 -origin 192.0.2.1:80
//
// Run it elevated and not elevated, and, with -keep FILE, before and after the
// next start of Windows. Nothing is changed, and nothing is sent but a few
// connections that are closed at once.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/doctor"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "waybill-wfpcheck:", err)
		os.Exit(1)
	}
}

// check is one run.
type check struct {
	out    io.Writer
	listen string
	origin string
	keep   string
	pause  bool
}

func run(args []string, out io.Writer) error {
	c := &check{out: out}
	flags := flag.NewFlagSet("waybill-wfpcheck", flag.ContinueOnError)
	flags.StringVar(&c.listen, "listen", "127.0.0.1:7001", "`address` to which the redirector sends connections")
	flags.StringVar(&c.origin, "origin", "", "`address` of a server, connections to which are redirected")
	flags.StringVar(&c.keep, "keep", "", "`file` with records of the last run, which are tried, and in which this run's are kept")
	flags.BoolVar(&c.pause, "pause", false, "stop in the middle, for the redirector to be stopped")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.listen)
	if err != nil {
		return err
	}
	defer l.Close()
	c.host()
	c.without(l.(*net.TCPListener))
	if c.origin == "" {
		fmt.Fprintln(out, "\nWithout -origin nothing can be asked of a redirected connection.")
		return nil
	}
	return c.with(l.(*net.TCPListener))
}

// host says where the report comes from.
func (c *check) host() {
	v := windows.RtlGetVersion()
	fmt.Fprintf(c.out, "# waybill-wfpcheck\n\nWindows %d.%d.%d, elevated: %t, listen %s, origin %s\n\n",
		v.MajorVersion, v.MinorVersion, v.BuildNumber, windows.GetCurrentProcessToken().IsElevated(), c.listen, c.origin)
	for _, f := range doctor.Redirectors() {
		fmt.Fprintf(c.out, "- %s: %s\n", f.Level, f.Subject)
	}
	fmt.Fprintf(c.out, "\n| question | what | answer |\n|---|---|---|\n")
}

// say prints a line of the report. A question is a letter of docs/windows.md.
func (c *check) say(question, what string, answer any) {
	fmt.Fprintf(c.out, "| %s | %s | %v |\n", question, what, answer)
}

// acceptSoon is for a connection that may have gone elsewhere.
func acceptSoon(l *net.TCPListener) (*net.TCPConn, error) {
	l.SetDeadline(time.Now().Add(5 * time.Second))
	return l.AcceptTCP()
}
