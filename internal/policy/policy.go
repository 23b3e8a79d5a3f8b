// Package policy is the model of what waybill does with connections: which
// providers there are, in which order, and which connections each one wants.
// It is pure: it knows nothing of the kernel.
//
// [Policy] is what a person declares. [Compile] checks it and makes the
// [Table] that the kernel programs read, as [Table.Classes] lays it out.
// [Table.Decide] is the Go twin of the decision in bpf/policy.h.
package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/waybill-net/waybill/internal/domain"
)

// Limits of the kernel programs, as in bpf/abi.h.
const (
	MaxProviders = 64
	MaxFilters   = 10240
	MaxHops      = 8
	MaxContext   = 1024 // bytes
)

// Policy is a whole desired state. The zero value redirects nothing.
type Policy struct {
	Providers []Provider
	Filters   []Filter

	// Shadow puts every provider into shadow mode.
	Shadow bool

	// TrackingOff forgets the records, so that each provider exempts only its
	// own processes. That is how proxies live without waybill; it exists to
	// show the loops that follow.
	TrackingOff bool
}

// OnDown says what becomes of a connection whose proxy does not listen.
type OnDown int

const (
	Bypass OnDown = iota // go on as if the provider were not there
	Block                // refuse the connection with EACCES
)

func (d OnDown) String() string {
	switch d {
	case Bypass:
		return "bypass"
	case Block:
		return "block"
	}
	return fmt.Sprintf("OnDown(%d)", int(d))
}

// Provider is a party that redirects connections to its proxy.
type Provider struct {
	Name   string
	Weight int32 // the heaviest sees a connection first; equal weights keep the policy's order

	Listen  netip.AddrPort // the proxy's address for TCP over IPv4; zero: that counts as down
	Listen6 netip.AddrPort // and over IPv6
	UDP     netip.AddrPort // likewise for UDP
	UDP6    netip.AddrPort

	// Cgroup is the directory, in the cgroup v2 file system, of the cgroup
	// that holds the proxy's processes and nothing else. It need not exist
	// yet: the provider is down until it does. A policy file can name a Unit or
	// a command to Exec instead; whoever applies the policy then fills in
	// where their processes are.
	Cgroup string
	Unit   string   // of systemd, such as "dlp.service"
	Exec   []string // a command that is started and supervised
	User   string   // whom Exec runs as: a name or a number; empty: as its starter

	OnDown OnDown

	// StuckAfter is how long a connection may wait for the proxy to accept it.
	// While one has waited for longer, the provider is down. Default 2 s.
	StuckAfter time.Duration

	// Emulate is what the proxy takes waybill for.
	Emulate Emulation

	// Shadow counts and reports what would happen, and does none of it.
	Shadow bool

	// OpenTo names the groups whose members may send their own programs
	// through this provider.
	OpenTo []string
}

// Emulation is the way in which a proxy that knows nothing of waybill learns
// where a connection wanted to go.
type Emulation int

const (
	EmulateRedirect Emulation = iota // it asks for SO_ORIGINAL_DST, as behind a REDIRECT rule
	EmulateTPROXY                    // or takes the address of its own end for it, as behind a TPROXY rule
)

func (e Emulation) String() string {
	switch e {
	case EmulateRedirect:
		return "redirect"
	case EmulateTPROXY:
		return "tproxy"
	}
	return fmt.Sprintf("Emulation(%d)", int(e))
}

const (
	// DefaultStuckAfter is longer than a healthy proxy pauses.
	DefaultStuckAfter = 2 * time.Second
	MinStuckAfter     = 10 * time.Millisecond
	MaxStuckAfter     = time.Hour
)

// StuckLimit is StuckAfter or its default.
func (p *Provider) StuckLimit() time.Duration { return cmp.Or(p.StuckAfter, DefaultStuckAfter) }

// Addresses lists those on which the provider's proxy takes a protocol.
func (p *Provider) Addresses(protocol Protocol) []netip.AddrPort {
	all := []netip.AddrPort{p.Listen, p.Listen6}
	if protocol == UDP {
		all = []netip.AddrPort{p.UDP, p.UDP6}
	}
	return slices.DeleteFunc(all, func(a netip.AddrPort) bool { return !a.IsValid() })
}

// Address returns where the provider's proxy takes connections of a protocol
// to addresses of the family of dst; zero: nowhere.
func (p *Provider) Address(protocol Protocol, dst netip.Addr) netip.AddrPort {
	switch is4 := dst.Unmap().Is4(); {
	case protocol == UDP && is4:
		return p.UDP
	case protocol == UDP:
		return p.UDP6
	case is4:
		return p.Listen
	}
	return p.Listen6
}

// Protocol of a connection, by its number in IP. The zero value is taken for
// TCP.
type Protocol uint8

const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case 0, TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("Protocol(%d)", int(p))
}

// Action of a filter.
type Action int

const (
	ActionRedirect Action = iota // send the connection to the provider's proxy
	ActionPermit                 // no lighter filter of this provider blocks the connection
	ActionBlock                  // refuse the connection with EACCES
)

func (a Action) String() string {
	switch a {
	case ActionRedirect:
		return "redirect"
	case ActionPermit:
		return "permit"
	case ActionBlock:
		return "block"
	}
	return fmt.Sprintf("Action(%d)", int(a))
}

// Filter selects connections for a provider. It matches when every field
// does, a field when one of its values does, and an empty field always.
//
// Redirect filters and the others, which authorize, are two layers that do
// not see each other: a permit does not keep a connection from being
// redirected.
type Filter struct {
	Name     string
	Provider string
	Action   Action
	Weight   int32 // inside the provider: of the filters of a layer that match, the heaviest counts

	Protocols []Protocol // empty: TCP alone

	// Loopback and link-local addresses are redirected only by a filter with
	// a destination inside that space.
	Destination    []netip.Prefix
	NotDestination []netip.Prefix
	Domains        []string // patterns of internal/domain: names that led to the destination, as far as somebody has told
	Ports          []PortRange

	Programs         []string // paths of the connecting executable
	OriginalPrograms []string // and of the one at the start of the chain
	Users            []string // who connects: names or numbers
	Cgroups          []string // directories: the connecting process is there or below
	OriginalCgroups  []string // the process at the start of the chain was there or below
	States           []State  // of the connection, for the provider; empty: all in which the action is possible

	// DropQUIC refuses UDP where this filter, which is for TCP, would redirect a
	// connection or refuse it because the provider is down: QUIC would be a way
	// around. Programs then use TCP. It is for given Ports only.
	DropQUIC bool

	Context []byte // of a redirect: for the provider's proxy alone, at most MaxContext bytes
}

// PortRange is inclusive.
type PortRange struct{ First, Last uint16 }

// Port is the range of one port.
func Port(p uint16) PortRange { return PortRange{p, p} }

func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Handle returns the identity behind "self" of the provider with this name.
// It is the same after a restart and on every host, so that records outlive a
// daemon.
func Handle(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(sum[:])
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func (p Policy) check() error {
	if n := len(p.Providers); n > MaxProviders {
		return fmt.Errorf("check policy: %d providers, at most %d", n, MaxProviders)
	}
	if n := len(p.Filters); n > MaxFilters {
		return fmt.Errorf("check policy: %d filters, at most %d", n, MaxFilters)
	}
	names := make(map[string]bool)
	listens := make(map[transport]string)
	for _, provider := range p.Providers {
		if err := provider.check(); err != nil {
			return fmt.Errorf("check provider %q: %w", provider.Name, err)
		}
		if names[provider.Name] {
			return fmt.Errorf("check provider %q: name used twice", provider.Name)
		}
		names[provider.Name] = true
		for _, a := range provider.transports() {
			if other, taken := listens[a]; taken {
				return fmt.Errorf("check provider %q: proxy address %s is already that of provider %q", provider.Name, a.at, other)
			}
			listens[a] = provider.Name
		}
	}
	for i, f := range p.Filters {
		if err := f.check(names); err != nil {
			return fmt.Errorf("check filter %d %q: %w", i+1, f.Name, err)
		}
	}
	return nil
}

// transport is an address of a proxy, for one protocol.
type transport struct {
	protocol Protocol
	at       netip.AddrPort
}

func (p *Provider) transports() []transport {
	var all []transport
	for _, protocol := range []Protocol{TCP, UDP} {
		for _, a := range p.Addresses(protocol) {
			all = append(all, transport{protocol, a})
		}
	}
	return all
}

func (p Provider) check() error {
	addresses := p.transports()
	switch {
	case !validName.MatchString(p.Name):
		return fmt.Errorf("name must be 1 to 63 of a-z, 0-9, '.', '_', '-', and begin with a letter or digit")
	case len(addresses) == 0:
		return fmt.Errorf("no proxy address: give Listen, Listen6, UDP or UDP6")
	case p.Listen.IsValid() && !p.Listen.Addr().Is4():
		return fmt.Errorf("proxy address %s is not IPv4; give it as Listen6", p.Listen)
	case p.UDP.IsValid() && !p.UDP.Addr().Is4():
		return fmt.Errorf("proxy address %s is not IPv4; give it as UDP6", p.UDP)
	case p.Listen6.IsValid() && (!p.Listen6.Addr().Is6() || p.Listen6.Addr().Is4In6()):
		return fmt.Errorf("proxy address %s is not IPv6; give it as Listen", p.Listen6)
	case p.UDP6.IsValid() && (!p.UDP6.Addr().Is6() || p.UDP6.Addr().Is4In6()):
		return fmt.Errorf("proxy address %s is not IPv6; give it as UDP", p.UDP6)
	case p.OnDown != Bypass && p.OnDown != Block:
		return fmt.Errorf("unknown on-down policy %d", p.OnDown)
	case p.Emulate != EmulateRedirect && p.Emulate != EmulateTPROXY:
		return fmt.Errorf("unknown emulation %d", p.Emulate)
	case p.StuckAfter != 0 && (p.StuckAfter < MinStuckAfter || p.StuckAfter > MaxStuckAfter):
		return fmt.Errorf("stuck-after %v is not between %v and %v", p.StuckAfter, MinStuckAfter, MaxStuckAfter)
	}
	for _, t := range addresses {
		if addr := t.at.Addr(); t.at.Port() == 0 || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("proxy address %s is not one to connect to", t.at)
		} else if addr.Zone() != "" {
			return fmt.Errorf("proxy address %s has a zone; connections can not be redirected to a zone", t.at)
		}
	}
	return nil
}

func (f Filter) check(providers map[string]bool) error {
	if !providers[f.Provider] {
		return fmt.Errorf("no provider %q in this policy", f.Provider)
	}
	if f.Action < ActionRedirect || f.Action > ActionBlock {
		return fmt.Errorf("unknown action %d", f.Action)
	}
	if n := len(f.Context); n > MaxContext {
		return fmt.Errorf("context of %d bytes, at most %d", n, MaxContext)
	}
	if len(f.Context) > 0 && f.Action != ActionRedirect {
		return fmt.Errorf("a context belongs to a redirect; the action is %s", f.Action)
	}
	for _, prefix := range append(f.Destination[:len(f.Destination):len(f.Destination)], f.NotDestination...) {
		if !prefix.IsValid() {
			return fmt.Errorf("destination prefix %s is not valid", prefix)
		}
	}
	for _, protocol := range f.Protocols {
		if protocol != TCP && protocol != UDP {
			return fmt.Errorf("unknown protocol %d", protocol)
		}
	}
	for _, pattern := range f.Domains {
		switch parsed, err := domain.Parse(pattern); {
		case err != nil:
			return fmt.Errorf("domain %q: %w", pattern, err)
		case parsed != pattern:
			return fmt.Errorf("domain %q is not in its canonical form, %q", pattern, parsed)
		}
	}
	if f.DropQUIC {
		switch {
		case f.Action != ActionRedirect || slices.Contains(f.Protocols, UDP):
			return errors.New("QUIC is dropped for filters that redirect TCP and nothing else")
		case len(f.Ports) == 0:
			return errors.New("QUIC is dropped for given ports only: all UDP to them is")
		}
	}
	for _, r := range f.Ports {
		if r.First > r.Last {
			return fmt.Errorf("ports %d-%d: the first is above the last", r.First, r.Last)
		}
	}
	for _, s := range f.States {
		if s < NotRedirected || s > PreviouslyRedirectedBySelf {
			return fmt.Errorf("unknown state %d", s)
		}
		if f.Action == ActionRedirect && !s.MayRedirect() {
			return fmt.Errorf("a connection in state %s is never redirected", s)
		}
	}
	return nil
}
