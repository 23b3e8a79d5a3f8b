//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/daemon"
	"github.com/waybill-net/waybill/internal/engine"
)

func newDaemon() *cobra.Command {
	var (
		opts daemon.Options
		api  apiFlags
	)
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Keep a policy in force on this host",
		Long: `Put the policy in force, start the proxies that it wants started, follow units
and programs that are restarted or replaced, write down every flow, and answer
on a Unix socket.

The work is done in the kernel: when the daemon ends, however it ends, traffic
goes on as before, and the next daemon takes over. "waybill off" takes
everything away. SIGHUP reads the policy file again.`,
		Example: `  sudo waybill daemon
  sudo waybill daemon --policy ./policy.yaml --metrics 127.0.0.1:9464
  sudo systemctl enable --now waybill`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Version = version()
			return runDaemon(cmd.Context(), opts, api, cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.Policy, "policy", daemon.DefaultPolicy, "policy file; it need not exist")
	f.StringVar(&api.metrics, "metrics", "", "also serve /metrics on this loopback `address`, such as 127.0.0.1:9464")
	f.StringVar(&api.group, "group", "waybill", "members of this `group` may run programs through providers that are open to them")
	f.BoolVar(&opts.Replace, "replace", false, "end the state of a version that can not be adopted, and begin anew")
	addPlaceFlags(cmd, &opts)
	f.StringVar(&opts.DataDir, "data-dir", daemon.DefaultDataDir, "`directory` for the recorded flows")
	return cmd
}

// apiFlags say whom the daemon answers.
type apiFlags struct{ metrics, group string }

// addPlaceFlags adds the flags that say where a daemon is at work.
func addPlaceFlags(cmd *cobra.Command, opts *daemon.Options) {
	f := cmd.Flags()
	f.StringVar(&opts.Scope, "scope", "", "`directory` of the cgroup that is covered (default: the root of cgroup v2)")
	f.StringVar(&opts.State, "state", daemon.DefaultState, "`directory` for pins, in a BPF file system")
	f.StringVar(&opts.RunDir, "run-dir", daemon.DefaultRunDir, "`directory` for the socket")
	f.StringVar(&opts.Cgroup, "cgroup", "", "`directory` of the cgroup for what the daemon starts (default: the unit's, or SCOPE/waybill)")
}

func runDaemon(ctx context.Context, opts daemon.Options, api apiFlags, stderr io.Writer) error {
	opts.Log = newLog(stderr)
	d, err := daemon.Open(opts)
	if err != nil {
		return explainDaemon(err)
	}
	defer d.Close()
	server := &control.Server{Backend: daemon.Backend{Daemon: d}, Version: opts.Version, Group: api.group}
	l, err := server.Listen(filepath.Join(opts.RunDir, filepath.Base(control.DefaultSocket)))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	go reloadOnHangup(ctx, d, opts.Log)
	var serving sync.WaitGroup
	defer serving.Wait() // before the daemon is closed, whatever ends it
	defer cancel()
	serving.Go(func() { logError(opts.Log, "serving the API", server.Serve(ctx, l)) })
	if err := serveNames(ctx, d, opts, &serving); err != nil {
		return err
	}
	if api.metrics != "" {
		l, err := control.ListenMetrics(api.metrics)
		if err != nil {
			return err
		}
		serving.Go(func() { logError(opts.Log, "serving metrics", server.ServeMetrics(ctx, l)) })
	}
	sd.SdNotify(false, sd.SdNotifyReady)
	err = d.Work(ctx)
	sd.SdNotify(false, sd.SdNotifyStopping)
	return err
}

func serveNames(ctx context.Context, d *daemon.Daemon, opts daemon.Options, serving *sync.WaitGroup) error {
	server := d.NamesServer()
	l, err := server.Listen(filepath.Join(opts.RunDir, filepath.Base(control.DefaultNamesSocket)))
	if err != nil {
		return err
	}
	serving.Go(func() { logError(opts.Log, "hearing names", server.Serve(ctx, l)) })
	return nil
}

func logError(log *slog.Logger, what string, err error) {
	if err != nil {
		log.Error(what, "error", err)
	}
}

// newLog lets the journal do what it does itself: its lines have a time.
func newLog(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func reloadOnHangup(ctx context.Context, d *daemon.Daemon, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			if err := d.ReloadPolicy(); err != nil {
				log.Error("the policy file was not put in force; the old policy stays", "error", err)
			}
		}
	}
}

func explainDaemon(err error) error {
	var other *engine.VersionError
	switch {
	case errors.Is(err, engine.ErrInUse):
		return &hintError{err, "a daemon runs already: waybill status"}
	case errors.As(err, &other):
		return &hintError{err, "waybill off takes it away; waybill daemon --replace does so and begins anew, and connections in mid-handshake lose their records"}
	}
	return withHint(err)
}

func newOff() *cobra.Command {
	var (
		opts   daemon.Options
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "off",
		Short: "Take every program, pin and cgroup of waybill away",
		Long: `Take away everything that the daemon has put into the kernel and started, also
after it was killed: programs, pins, the proxies that it started, cgroups.
Traffic then goes as if waybill had never been there. Connections that are open
stay open, except those through proxies that the daemon had started.

The policy file and the recorded flows stay. The daemon must not be running.`,
		Example: "  sudo systemctl stop waybill && sudo waybill off",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := daemon.Off(opts)
			if err != nil {
				return explainOff(err)
			}
			return showRemoved(cmd.OutOrStdout(), done, asJSON)
		},
	}
	addPlaceFlags(cmd, &opts)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead")
	return cmd
}

func explainOff(err error) error {
	var running *daemon.RunningError
	if errors.As(err, &running) {
		return &hintError{err, "stop it first: systemctl stop waybill, or kill " + strconv.Itoa(running.PID)}
	}
	return withHint(err)
}

func showRemoved(w io.Writer, done *daemon.Removed, asJSON bool) error {
	if asJSON {
		return printJSON(w, done)
	}
	lines := []string{}
	if done.State != "" {
		lines = append(lines, "programs and pins: "+done.State)
	}
	if done.Cgroup != "" {
		lines = append(lines, fmt.Sprintf("cgroups: %s (%d processes of proxies)", done.Cgroup, done.Proxies))
	}
	if done.Files != "" {
		lines = append(lines, "files: "+done.Files)
	}
	if done.Left > 0 {
		fmt.Fprintf(w, "%s of runs go on in their cgroups\n", count(done.Left, "program"))
	}
	if len(lines) == 0 {
		lines = append(lines, "nothing: there was nothing of waybill's")
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, "removed "+line); err != nil {
			return err
		}
	}
	return nil
}
