//go:build linux

package preset

import (
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"text/template"

	"github.com/waybill-net/waybill/internal/supervise"
)

//go:embed config
var configs embed.FS

// Prepare makes the proxy's working directory, for its user alone, and writes
// what the proxy needs into it. The caller removes it.
func (p *Preset) Prepare(site Site) (*Prepared, error) {
	if err := p.checkOptions(site.Options); err != nil {
		return nil, err
	}
	w := &workplace{Site: site, preset: p, out: &Prepared{Listen6: site.Listen6, Ports: p.ports}}
	if p.IPv4Only {
		w.Listen6, w.out.Listen6 = netip.AddrPort{}, netip.AddrPort{}
	}
	var err error
	if w.user, err = p.user(); err != nil {
		return nil, err
	}
	w.path = "/proc/self/exe"
	if p.Program != "" {
		if w.path, err = p.find(); err != nil {
			return nil, err
		}
	}
	if err := w.makeDir(); err != nil {
		return nil, fmt.Errorf("prepare proxy %s: %w", p.Name, err)
	}
	if w.out.Processes, err = p.prepare(w); err != nil {
		return nil, fmt.Errorf("prepare proxy %s: %w", p.Name, err)
	}
	return w.out, nil
}

func (p *Preset) checkOptions(options map[string]string) error {
	var known []string
	for _, o := range p.Options {
		known = append(known, o.Name)
	}
	for name := range options {
		if !slices.Contains(known, name) {
			return fmt.Errorf("set %s.%s: no such option; see: waybill run --list", p.Name, name)
		}
	}
	return nil
}

// workplace is a site with what the presets need to set up their proxy in it.
type workplace struct {
	Site
	preset *Preset
	user   *supervise.User
	path   string // of the program
	out    *Prepared
}

func (w *workplace) makeDir() error {
	if err := os.Mkdir(w.Dir, 0o700); err != nil {
		return err
	}
	return os.Chown(w.Dir, int(w.user.UID), int(w.user.GID))
}

// listens is what one process of the proxy listens on if it takes both families.
func (w *workplace) listens() []netip.AddrPort {
	if !w.Listen6.IsValid() {
		return []netip.AddrPort{w.Listen}
	}
	return []netip.AddrPort{w.Listen, w.Listen6}
}

// command is a process of the proxy. It gets nothing of our environment: what
// stands there is meant for the user's programs.
func (w *workplace) command(args ...string) supervise.Command {
	return supervise.Command{
		Name: w.preset.Name, Path: w.path, Args: args, Dir: w.Dir, User: w.user,
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=" + w.Dir, "TMPDIR=" + w.Dir, "LANG=C.UTF-8",
			// MPTCP sockets do not answer SO_ORIGINAL_DST, and Go's listeners are such sockets.
			"GODEBUG=multipathtcp=0",
		},
	}
}

// self is a process of this program in another role.
func (w *workplace) self(args ...string) supervise.Command {
	c := w.command(args...)
	c.Path, c.Arg0 = "/proc/self/exe", w.Self
	return c
}

// configData is what the templates of configuration files see.
type configData struct {
	Listen   netip.AddrPort
	Listen6  *netip.AddrPort // nil: no IPv6
	Upstream netip.AddrPort
	Forward  netip.AddrPort
	HTTP     bool
	Module   string
}

func (w *workplace) data() configData {
	d := configData{Listen: w.Listen}
	if w.Listen6.IsValid() {
		d.Listen6 = &w.Listen6
	}
	return d
}

// write makes the configuration file of this name and returns its path.
func (w *workplace) write(name string, d configData) (string, error) {
	t, err := template.ParseFS(configs, "config/"+name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(w.Dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	// The proxy's user reads it but is not its owner and can not change it.
	return path, errors.Join(f.Chmod(0o644), t.Execute(f, d), f.Close())
}

// copyIn copies a file of the caller's into the working directory: the
// proxy's user may not be able to read it where it is.
func (w *workplace) copyIn(from, name string) (string, error) {
	b, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	to := filepath.Join(w.Dir, name)
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	return to, errors.Join(err, f.Chmod(0o644), f.Close())
}

// ports is the option of this name as ranges of ports, if it was set.
func (w *workplace) setPorts(option string) error {
	value := w.Options[option]
	if value == "" {
		return nil
	}
	ports, err := ParsePorts(value)
	if err != nil {
		return fmt.Errorf("set %s.%s: %w", w.preset.Name, option, err)
	}
	w.out.Ports = ports
	return nil
}
