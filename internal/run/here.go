//go:build linux

package run

import "context"

// Here runs the command in the cgroup of this process, which enter has moved
// it to: a daemon redirects its connections there. The status and errors are
// those of [Run]; leave is called at the end.
func Here(ctx context.Context, opts Options, enter func(context.Context) (leave func() error, err error)) (status int, err error) {
	app, err := newApp(opts)
	if err != nil {
		return 0, err
	}
	signals, ctx := catchSignals(ctx)
	defer signals.release()
	leave, err := enter(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		if lerr := leave(); lerr != nil {
			opts.report("%v", lerr) // the status is the command's all the same
		}
	}()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if err := app.start(""); err != nil {
		return 0, err
	}
	signals.passTo(app.process())
	return app.wait(), nil
}
