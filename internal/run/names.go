//go:build linux

package run

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/names"
)

// toldNames hears from the proxies which addresses names lead to, for filters
// of a policy that ask.
type toldNames struct {
	socket string
	cancel context.CancelFunc
	ended  chan error
}

// listenNames begins to listen. The cgroups of proxies are those of the stage
// when one of them tells something.
func listenNames(s *stage, opts Options) (*toldNames, error) {
	keeper, err := names.Open(names.Options{Set: s.engine.SetNames, Failed: func(err error) { opts.report("%v", err) }})
	if err != nil {
		return nil, err
	}
	server := &control.NamesServer{MayTell: s.isProxy, Learn: keeper.Learn}
	t := &toldNames{socket: filepath.Join(s.work.path, filepath.Base(control.DefaultNamesSocket)), ended: make(chan error, 2)}
	l, err := server.Listen(t.socket)
	if err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, t.cancel = context.WithCancel(context.Background())
	go func() { t.ended <- server.Serve(ctx, l) }()
	go func() {
		keeper.Run(ctx)
		t.ended <- nil
	}()
	return t, nil
}

func (t *toldNames) close() error {
	t.cancel()
	return errors.Join(<-t.ended, <-t.ended)
}
