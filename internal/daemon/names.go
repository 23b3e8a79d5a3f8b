//go:build linux

package daemon

import (
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/names"
)

// openNames takes over what an earlier daemon was told. Under a policy that was
// adopted it does not count: that is no trouble before restorePolicy puts one
// in force, nor if it is forgotten.
func (d *Daemon) openNames() (err error) {
	opening := true
	d.names, err = names.Open(names.Options{
		Path: filepath.Join(d.opts.RunDir, "names.json"),
		Set: func(addr netip.Addr, names []string) error {
			err := d.engine.SetNames(addr, names)
			if errors.Is(err, engine.ErrUnknownPolicy) && (opening || len(names) == 0) {
				return nil
			}
			return err
		},
		Failed: func(err error) { d.log.Error("names that a proxy told", "error", err) },
	})
	opening = false
	return err
}

// NamesServer hears from proxies which addresses names lead to.
func (d *Daemon) NamesServer() *control.NamesServer {
	return &control.NamesServer{MayTell: d.isProxy, Learn: d.names.Learn}
}

// namesSocket is where it listens.
func (d *Daemon) namesSocket() string {
	return filepath.Join(d.opts.RunDir, filepath.Base(control.DefaultNamesSocket))
}

// isProxy reports whether a process belongs to a provider of the policy in
// force. It does without d.mu, which is held while proxies are started and
// stopped: programs wait for their answers meanwhile.
func (d *Daemon) isProxy(p *control.Peer) bool {
	dirs := d.proxyDirs.Load()
	return dirs != nil && p.IsIn(*dirs...)
}
