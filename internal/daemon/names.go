package daemon

import (
	"path/filepath"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/names"
)

// openNames takes over what an earlier daemon was told.
func (d *Daemon) openNames() (err error) {
	d.names, err = names.Open(names.Options{
		Path:   filepath.Join(d.opts.RunDir, "names.json"),
		Set:    d.engine.SetNames,
		Failed: func(err error) { d.log.Error("names that a proxy told", "error", err) },
	})
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
// force.
func (d *Daemon) isProxy(p *control.Peer) bool {
	d.mu.Lock()
	var dirs []string
	for _, provider := range d.applied.effective.Providers {
		dirs = append(dirs, provider.Cgroup)
	}
	d.mu.Unlock()
	return p.IsIn(dirs...)
}
