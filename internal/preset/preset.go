//go:build linux

// Package preset knows the installed proxies that waybill can start by name,
// unmodified, as transparent proxies.
package preset

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/supervise"
)

// Preset is one kind of proxy.
type Preset struct {
	Name    string
	About   string // one line
	Program string // to be found in PATH; empty: this one
	Package string // Debian's; empty: not in Debian
	Source  string // where to get it otherwise
	Options []Option

	// IPv4Only: the proxy does not ask for the original destination of IPv6
	// connections, so they go past it.
	IPv4Only bool

	// UDP: the proxy takes it, too.
	UDP bool

	// Emulate is how the proxy learns the original destination.
	Emulate policy.Emulation

	ports   []policy.PortRange // that it understands; empty: all
	users   []string           // whoever of them exists first runs it
	prepare func(*workplace) ([]Process, error)
}

// Option can be set by --set PRESET.NAME=VALUE.
type Option struct {
	Name    string
	Default string // for people; the preset knows what an empty value means
	About   string
}

// presets in the order in which people see them.
func presets() []*Preset {
	return []*Preset{inspectPreset(), mitmproxy(), haproxy(), nginx(), squid(), redsocks(), singBox(), envoy()}
}

// List returns all presets.
func List() []*Preset { return presets() }

// Lookup finds a preset by its name.
func Lookup(name string) (*Preset, error) {
	all := presets()
	var names []string
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	err := fmt.Errorf("look up proxy %q: no such preset; there are %s", name, strings.Join(names, ", "))
	if near := nearest(name, names); near != "" {
		err = fmt.Errorf("%w; did you mean %s?", err, near)
	}
	return nil, err
}

// NotInstalledError says that the program of a preset is not there.
type NotInstalledError struct {
	Preset *Preset
	Err    error
}

func (e *NotInstalledError) Error() string {
	return fmt.Sprintf("find proxy %s: %s is not installed", e.Preset.Name, e.Preset.Program)
}

func (e *NotInstalledError) Unwrap() error { return e.Err }

// Hint says where to get the program.
func (e *NotInstalledError) Hint() string {
	if e.Preset.Package != "" {
		return "apt-get install " + e.Preset.Package
	}
	return "get it from " + e.Preset.Source
}

// Installed returns nil if the preset's program is there.
func (p *Preset) Installed() error {
	if p.Program == "" {
		return nil
	}
	_, err := p.find()
	return err
}

// find returns the path of the preset's program. Daemons are in /usr/sbin,
// which PATH may lack.
func (p *Preset) find() (string, error) {
	path, err := exec.LookPath(p.Program)
	if errors.Is(err, exec.ErrNotFound) {
		if path, serr := exec.LookPath("/usr/sbin/" + p.Program); serr == nil {
			return path, nil
		}
		return "", &NotInstalledError{p, err}
	}
	return path, err
}

// user returns whom the proxy runs as: somebody with no rights.
func (p *Preset) user() (*supervise.User, error) {
	var errs []error
	for _, name := range append(slices.Clone(p.users), "nobody") {
		u, err := supervise.LookupUser(name)
		if err == nil {
			return u, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("find a user for proxy %s: %w", p.Name, errors.Join(errs...))
}

// Site is where a proxy is to work.
type Site struct {
	Dir     string            // not there yet; its parent is open to everybody
	Listen  netip.AddrPort    // for IPv4
	Listen6 netip.AddrPort    // for IPv6; zero: this machine has none
	UDP     bool              // on the same addresses
	Options map[string]string // by [Option.Name]
	Self    string            // the name by which this program was called
	Names   string            // socket on which names are told; empty: nobody listens
}

// Process is a program of a prepared proxy and what it listens on when it is
// ready. Its cgroup and output are for the caller to fill in.
type Process struct {
	supervise.Command
	Listen []netip.AddrPort
}

// Prepared is a proxy that is ready to be started.
type Prepared struct {
	Processes []Process // each is to be started when the one before listens
	Listen6   netip.AddrPort
	Ports     []policy.PortRange // that may be redirected to it; empty: all

	// CA is the file with the certificate of the authority whose certificates
	// the proxy shows to programs. It is there when the proxy listens.
	CA string
}
