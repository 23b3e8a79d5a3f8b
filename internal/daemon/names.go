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
// force. It does without d.mu, which is held while proxies are started and
// stopped: programs wait for their answers meanwhile.
func (d *Daemon) isProxy(p *control.Peer) bool {
	dirs := d.proxyDirs.Load()
	return dirs != nil && p.IsIn(*dirs...)
}
