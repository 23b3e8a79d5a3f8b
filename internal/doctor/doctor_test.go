//go:build linux

package doctor_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/doctor"
	"github.com/waybill-net/waybill/internal/testenv"
)

// runAsNobody makes the test binary print its findings and end.
const runAsNobody = "WAYBILL_TEST_EXAMINE"

func TestMain(m *testing.M) {
	if scope, ok := os.LookupEnv(runAsNobody); ok {
		os.Exit(printFindings(scope))
	}
	os.Exit(m.Run())
}

func printFindings(scope string) int {
	findings, err := doctor.Examine(context.Background(), doctor.Options{Scope: scope})
	if err != nil {
		println(err.Error())
		return 1
	}
	if err := json.NewEncoder(os.Stdout).Encode(findings); err != nil {
		return 1
	}
	return 0
}

// examine returns the findings of one check, inside env's network namespace.
func examine(t *testing.T, env *testenv.Env, o doctor.Options, check string) []doctor.Finding {
	t.Helper()
	var findings []doctor.Finding
	env.Inside(func() (err error) {
		findings, err = doctor.Examine(t.Context(), o)
		return err
	})
	return slices.DeleteFunc(findings, func(f doctor.Finding) bool { return f.Check != check })
}

// find returns the finding whose subject has all the words.
func find(t *testing.T, findings []doctor.Finding, words ...string) doctor.Finding {
	t.Helper()
	for _, f := range findings {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(f.Subject, w) }) {
			return f
		}
	}
	t.Fatalf("no finding has %q: %+v", words, findings)
	return doctor.Finding{}
}

// TestWithoutRoot: nothing fails, and what could not be seen is said.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	// By this path, and not by its name, because others may not enter the
	// directory of the test binary.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), runAsNobody+"="+env.Scope)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var findings []doctor.Finding
	if err := json.Unmarshal(out, &findings); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{
		"whether the kernel accepts", "programs on " + env.Scope, "rules of nftables", "no CAP_BPF", "processes are hidden",
	} {
		if f := find(t, findings, words); f.Level != doctor.Info || !strings.Contains(f.Remedy, "as root") {
			t.Errorf("%+v", f)
		}
	}
	if n := doctor.Problems(findings); n != 0 {
		t.Errorf("%d problems: %+v", n, findings)
	}
}

func TestScopeIsNoCgroup(t *testing.T) {
	dir := t.TempDir()
	for scope, want := range map[string]string{
		dir:                          "not a directory of the cgroup v2 file system",
		filepath.Join(dir, "absent"): "no such file",
	} {
		if _, err := doctor.Examine(t.Context(), doctor.Options{Scope: scope}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", scope, err, want)
		}
	}
}

// TestCancelled: a cancelled examination is an error, not half a list.
func TestCancelled(t *testing.T) {
	ctx := cancelled(t)
	if findings, err := doctor.Examine(ctx, doctor.Options{}); err != ctx.Err() {
		t.Errorf("%v, %d findings", err, len(findings))
	}
}
