//go:build linux

package engine_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// asNobody runs a role as the user nobody with these capabilities alone.
func asNobody(t *testing.T, env *testenv.Env, cgroup, role, capabilities string, args ...string) *exec.Cmd {
	t.Helper()
	// By its descriptor: nobody may not enter the directory of the test binary.
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	nobody := strconv.Itoa(nobodyUID)
	cmd := env.Command(cgroup, "setpriv", append([]string{
		"--reuid=" + nobody, "--regid=" + nobody, "--clear-groups", "--no-new-privs",
		"--bounding-set=-all" + capabilities, "--inh-caps=-all" + capabilities, "--ambient-caps=-all" + capabilities,
		"--", "/proc/self/fd/3",
	}, args...)...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.ExtraFiles = []*os.File{self}
	return cmd
}

// TestEngineWithThreeCapabilities: to load, attach, change a policy and read
// counters takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and no user 0. The
// proxy and the application of this test have no capability at all.
func TestEngineWithThreeCapabilities(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	cover := env.StartCommand(asNobody(t, env, "engine", "cover", ",+bpf,+perfmon,+net_admin", env.Scope, env.Cgroup("a")))
	proxy := env.StartCommand(asNobody(t, env, "a", "proxy", "", "127.0.0.1:7001"))
	startOrigin(t, env)
	if got := goAround(t, env, "plain"); got.Answer != answer {
		t.Errorf("client found %+v", got)
	}
	var sum proxySummary
	decode(t, proxy.Stop(syscall.SIGTERM), &sum)
	if sum != (proxySummary{Accepted: 1}) {
		t.Errorf("proxy: %+v", sum)
	}
	if got, want := cover.Stop(syscall.SIGTERM), "redirected 1, arrived 1, set 1, denied 0"; got != want {
		t.Errorf("engine: %q, want %q", got, want)
	}
}

// playCover has an engine cover a scope until SIGTERM. The provider's processes
// are those in a cgroup.
func playCover(scope, providerCgroup string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	e, err := engine.Open(engine.Options{Scope: scope})
	if err != nil {
		return err
	}
	p := policy.Policy{
		Providers: []policy.Provider{{Name: "a", Listen: netip.MustParseAddrPort("127.0.0.1:7001"), Cgroup: providerCgroup}},
		Filters:   []policy.Filter{{Provider: "a", Ports: []policy.PortRange{policy.Port(originPort)}}},
	}
	for range 2 { // the second exchanges the first
		if err := e.Apply(p); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	<-ctx.Done()
	c, err := e.Counters()
	if err != nil {
		return err
	}
	fmt.Printf("redirected %d, arrived %d, set %d, denied %d\n", c["redirected"], c["arrived"], c["set"], c["set_denied"])
	return e.Close()
}

// TestStateIsRoots: nobody else may enter the directory of the pins, and by
// its own mode none of them can be opened.
func TestStateIsRoots(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	dir := env.StateDir()
	e, err := engine.Open(engine.Options{Scope: env.Scope, State: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Remove(dir)
	defer e.Close()
	apply(t, e, chain(env, "a"))
	pins := 0
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v and belongs to user %d", path, info.Mode(), st.Uid)
		}
		if !entry.IsDir() {
			pins++
		}
		return nil
	})
	if err != nil || pins < 15 {
		t.Errorf("%d pins, %v", pins, err)
	}
}
