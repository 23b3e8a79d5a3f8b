//go:build linux

// Package transparency has tests of what a program can notice of being behind
// proxies: the same program runs outside and inside of `waybill run`. What
// differs must stand in docs/transparency.md, and what stands there must
// differ.
package transparency

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/testenv"
)

// scene has what the programs of one test need.
type scene struct {
	t      *testing.T
	bin    string // directory of what was built
	policy string
}

// newScene has the policy of this name in testdata.
func newScene(t *testing.T, policy string) *scene {
	s := &scene{t: t, bin: t.TempDir(), policy: filepath.Join(testdata(t), policy)}
	s.build("build", "-o", s.path("waybill"), "github.com/waybill-net/waybill/cmd/waybill")
	return s
}

// testdata is the directory, for programs that run elsewhere.
func testdata(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *scene) path(name string) string { return filepath.Join(s.bin, name) }

// build runs the go command.
func (s *scene) build(args ...string) {
	s.t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// outcome is what one run of a program has left.
type outcome struct {
	stdout        string
	err           error // of a program that failed
	took          time.Duration
	stderr        string // without what the proxies print
	first, second int    // connections that each proxy has seen
}

// outside runs a program without waybill.
func (s *scene) outside(env *testenv.Env, dir string, command ...string) outcome {
	s.t.Helper()
	return s.run(env.Command("app", command[0], command[1:]...), env, dir)
}

// inside runs a program behind two proxies, to which all that the policy is
// about is redirected, loopback addresses too.
func (s *scene) inside(env *testenv.Env, dir string, command ...string) outcome {
	s.t.Helper()
	args := append([]string{"run", "--policy", s.policy, "--"}, command...)
	return s.run(env.Command("app", s.path("waybill"), args...), env, dir)
}

// runTimeout ends a program that hangs. The programs have limits of their
// own, and say more at their end.
const runTimeout = 10 * time.Minute

func (s *scene) run(cmd *exec.Cmd, env *testenv.Env, dir string) outcome {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"))
	start := time.Now()
	env.Inside(cmd.Start)
	timer := time.AfterFunc(runTimeout, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	o := outcome{stdout: stdout.String(), err: err, took: time.Since(start)}
	for line := range strings.Lines(stderr.String()) {
		switch m := proxyLine.FindStringSubmatch(line); {
		case m == nil:
			o.stderr += line
		case m[1] == "first":
			o.first++
		default:
			o.second++
		}
	}
	return o
}

// proxyLine is what a proxy says of each connection; the second one must be
// the second of the connection's way. Of UDP it does not say so.
var proxyLine = regexp.MustCompile(`^(?:(first) \| .* -> \S+: |(second) \| .* -> \S+(?: \(proxy 2 of its way\)|/udp): )`)
