//go:build linux

package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/control/controltest"
	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
)

func TestClient(t *testing.T) {
	b := controltest.New(t)
	socket, _ := controltest.Serve(t, b)
	c, ctx := control.Client{Socket: socket}, context.Background()

	version, err := c.Version(ctx)
	equal(t, "version", version, &control.Version{Version: "v0.3.0", API: 1}, err)

	want, _ := b.Status(ctx)
	got, err := c.Status(ctx)
	equal(t, "status", got, want, err)

	providers, err := c.Providers(ctx)
	equal(t, "providers", providers, want.Providers, err)
	if !providers[0].Up() || providers[1].Up() {
		t.Error("adblock is up and dlp down")
	}

	wantPolicy, _ := b.Policy(ctx)
	policy, err := c.Policy(ctx)
	equal(t, "policy", policy, wantPolicy, err)

	applied, err := c.ApplyPolicy(ctx, "p.yaml", []byte(goodPolicy))
	if err != nil || applied.Generation != 5 || applied.Providers != 1 || len(applied.Warnings) == 0 || applied.Warnings[0].File != "p.yaml" {
		t.Errorf("apply: got %+v, %v", applied, err)
	}

	explanation, err := c.Explain(ctx, explain.Question{Dst: controltest.Connect(1, 0).Dst, Program: "/usr/bin/curl"})
	if err != nil || len(explanation.Steps) != 1 || explanation.Steps[0].Provider != "adblock" || explanation.Steps[0].Process.Program != "/usr/bin/curl" {
		t.Errorf("explain: got %+v, %v", explanation, err)
	}

	table, err := c.SQL(ctx, "SELECT 9223372036854775807 AS n, 'x' AS s, NULL AS none")
	equal(t, "sql", table, &control.Table{
		Columns: []string{"n", "s", "none"},
		Rows:    [][]any{{json.Number("9223372036854775807"), "x", nil}},
	}, err)
}

// goodPolicy has a provider that sees nothing, which is worth a warning.
const goodPolicy = `version: 1
providers:
  - name: adblock
    proxy: {listen: "127.0.0.1:7001", listen6: "[::1]:7001"}
    processes: {unit: adblock.service}
`

func TestClientFlows(t *testing.T) {
	b := controltest.New(t)
	socket, _ := controltest.Serve(t, b)
	c, ctx := control.Client{Socket: socket}, context.Background()
	stored, err := b.Flow(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Flow(ctx, 2)
	if err != nil || asJSON(t, f) != asJSON(t, stored) {
		t.Errorf("got %+v, %v", f, err)
	}
	_, err = c.Flow(ctx, 77)
	checkError(t, "no flow", err, 404, "000000000000004d: no such flow", "waybill flows")
	for _, tt := range []struct {
		name string
		q    flowstore.Query
		want []flow.ID
	}{
		{"all", flowstore.Query{}, []flow.ID{4, 3, 2, 1}},
		{"newest", flowstore.Query{Limit: 1}, []flow.ID{4}},
		{"since", flowstore.Query{Since: controltest.Began.Add(3 * time.Second)}, []flow.ID{4, 3}},
		{"until", flowstore.Query{Until: controltest.Began.Add(2 * time.Second)}, []flow.ID{1}},
		{"program", flowstore.Query{Program: "curl"}, []flow.ID{3, 2, 1}},
		{"another program", flowstore.Query{Program: "wget"}, nil},
		{"provider", flowstore.Query{Provider: "dlp"}, nil},
	} {
		flows, err := c.Flows(ctx, tt.q)
		var got []flow.ID
		for _, f := range flows {
			got = append(got, f.ID)
		}
		equal(t, tt.name, got, tt.want, err)
	}
}

var errTooSlow = errors.New("too many flows wait to be read")

func TestFollow(t *testing.T) {
	b := controltest.New(t)
	socket, _ := controltest.Serve(t, b)
	c := control.Client{Socket: socket}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	follower, err := c.Follow(ctx, flowstore.Query{Program: "curl", Provider: "adblock"})
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	other := controltest.Changed(7, controltest.Alice)
	other.Process.Comm = "wget"
	send(t, b, other)
	send(t, b, controltest.Changed(8, controltest.Alice))
	if f, err := follower.Next(); err != nil || asJSON(t, f) != asJSON(t, controltest.Changed(8, controltest.Alice)) {
		t.Errorf("got %+v, %v", f, err)
	}
	b.FollowError = errTooSlow
	send(t, b, flow.Flow{})
	_, err = follower.Next()
	checkError(t, "end", err, 0, errTooSlow.Error(), "")

	// Without a follower nobody waits.
	another, err := c.Follow(ctx, flowstore.Query{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := another.Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: got %v", err)
	}
}

func TestRun(t *testing.T) {
	b := controltest.New(t)
	socket, stop := controltest.Serve(t, b)
	c, ctx := control.Client{Socket: socket}, context.Background()
	run, err := c.Run(ctx, control.RunRequest{Via: []string{"adblock", "dlp"}})
	if err != nil || run.Cgroup != "/sys/fs/cgroup/waybill/run-1" || !reflect.DeepEqual(run.Via, []string{"adblock", "dlp"}) {
		t.Fatalf("got %+v, %v", run, err)
	}
	peer := controltest.Within(t, b.Runs, "run")
	if peer.PID != os.Getpid() || peer.UID != 0 {
		t.Errorf("got %+v", peer)
	}
	select {
	case <-b.Ended:
		t.Error("it ended while its connection was open")
	default:
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	controltest.Within(t, b.Ended, "end of the run")

	// When the daemon ends, runs end in order.
	run, err = c.Run(ctx, control.RunRequest{Via: []string{"dlp"}})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
	controltest.Within(t, b.Ended, "end of the run")
}

// leave makes a socket that nobody listens on.
func leave(t *testing.T, socket string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, what string, got, want any, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, %v\nwant %+v", what, got, err, want)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func checkError(t *testing.T, what string, err error, status int, message, hint string) *control.Error {
	t.Helper()
	var e *control.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: got %v", what, err)
	}
	if e.Status != status || !strings.Contains(e.Message, message) || !strings.Contains(e.Hint, hint) || (hint == "") != (e.Hint == "") {
		t.Errorf("%s: got %d %q, hint %q; want %d %q, hint %q", what, e.Status, e.Message, e.Hint, status, message, hint)
	}
	if errors.Is(err, fs.ErrPermission) {
		t.Errorf("%s: it has nothing to do with permissions: %v", what, err)
	}
	return e
}
