//go:build transparency

package transparency

import (
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/testenv"
)

// suite is Go's own tests of one package.
type suite struct {
	name string // in the document
	pkg  string
	run  string // a pattern of tests; empty: all
	edit *edit  // of the sources before they are compiled
	// least is how many connections must have gone through both proxies:
	// without them there is nothing to compare. Some tests do not wait for
	// what they have opened; its listener may be closed before the first proxy
	// has come to the second.
	least int
}

// edit replaces one line of a file.
type edit struct{ file, old, new string }

// sameAddress is what tests of crypto/tls ask of the connection that they
// accept: that its remote address is the local address of the one that they
// have opened. Behind a proxy it can not be. Each of these tests would take
// five seconds to say so.
var sameAddress = &edit{
	file: "handshake_test.go",
	old:  "if c2.RemoteAddr().String() == c1.LocalAddr().String() {",
	new:  "if true {",
}

// TestGo runs Go's own tests outside and inside.
func TestGo(t *testing.T) {
	s := newScene(t, "tcp.yaml")
	document := readDocument(t)
	for _, g := range []suite{
		{name: "net", pkg: "net", least: 100},
		{name: "net/http", pkg: "net/http", least: 900},
		{name: "crypto/tls", pkg: "crypto/tls", run: "^(TestHairpinInClose|TestRecordBadVersionTLS13)$", least: 8},
		{name: "crypto/tls, edited", pkg: "crypto/tls", edit: sameAddress, least: 300},
	} {
		// One after the other: they measure time.
		t.Run(g.name, func(t *testing.T) {
			s.t = t
			compareSuite(t, s, g, document.rows("Go's own tests", g.name))
		})
	}
}

func compareSuite(t *testing.T, s *scene, g suite, want []row) {
	binary, dir := g.compile(s)
	c := &comparison{scene: s, env: testenv.New(t), dir: dir, command: func(pattern string) []string {
		return []string{binary, "-test.short", "-test.v", "-test.timeout=5m", "-test.run=" + pattern}
	}}
	c.compare(cmp.Or(g.run, "."), want, g.least)
}

// comparison is tests that run on both sides.
type comparison struct {
	*scene
	env     *testenv.Env
	dir     string
	command func(pattern string) []string // runs those that match
}

// compare runs tests outside and inside, where at least so many connections
// must have gone through both proxies, and checks that they differ as wanted.
func (c *comparison) compare(pattern string, want []row, least int) {
	c.t.Helper()
	outside, inside := c.run(pattern)
	without, with := parseResults(outside.stdout), parseResults(inside.stdout)
	c.t.Logf("outside: %v in %.1f s", without, outside.took.Seconds())
	c.t.Logf("inside:  %v in %.1f s; the first proxy saw %d connections, the second %d",
		with, inside.took.Seconds(), inside.first, inside.second)
	if len(without) == 0 || inside.second < least {
		c.t.Errorf("too little to compare: want at least %d connections through both proxies", least)
	}
	got := c.dropUnsteady(differences(without, with), want)
	for _, d := range got {
		c.t.Logf("differs: %s\n%s", d, outputOf(inside.stdout, d.name))
	}
	checkRows(c.t, got, want)
	if c.t.Failed() {
		c.t.Logf("stderr inside:\n%s", inside.stderr)
	}
}

// run runs the tests that match a pattern, first outside and then inside:
// they measure time.
func (c *comparison) run(pattern string) (outside, inside outcome) {
	args := c.command(pattern)
	return c.outside(c.env, c.dir, args...), c.inside(c.env, c.dir, args...)
}

// dropUnsteady runs what differs and is not expected to once more on both
// sides, and drops what does not differ again: Go's tests have deadlines, and
// this machine other work.
func (c *comparison) dropUnsteady(got, want []row) []row {
	var steady []row
	for _, d := range got {
		if !contains(want, d) {
			top, _, _ := strings.Cut(d.name, "/")
			outside, inside := c.run("^" + top + "$")
			if !contains(differences(parseResults(outside.stdout), parseResults(inside.stdout)), d) {
				c.t.Logf("not steady, not counted: %s", d)
				continue
			}
		}
		steady = append(steady, d)
	}
	return steady
}

// compile builds the tests and returns where they are to run.
func (g suite) compile(s *scene) (binary, dir string) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	dir = filepath.Join(strings.TrimSpace(string(out)), "src", g.pkg)
	binary = s.path(strings.NewReplacer("/", "-", ", ", "-").Replace(g.name) + ".test")
	args := []string{"test", "-c", "-o", binary}
	if g.edit != nil {
		args = append(args, "-overlay="+g.edit.overlay(s, dir))
	}
	start := time.Now()
	s.build(append(args, g.pkg)...)
	s.t.Logf("compiled in %.1f s", time.Since(start).Seconds())
	return binary, dir
}

// overlay writes the edited file and the map that makes the go command take
// it in place of the one in dir.
func (e *edit) overlay(s *scene, dir string) string {
	original := filepath.Join(dir, e.file)
	source, err := os.ReadFile(original)
	if err != nil {
		s.t.Fatal(err)
	}
	if n := strings.Count(string(source), e.old); n != 1 {
		s.t.Fatalf("edit %s: it has the line %q %d times, want once", original, e.old, n)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: s.path(e.file)}})
	if err != nil {
		s.t.Fatal(err)
	}
	write(s.t, s.path(e.file), strings.Replace(string(source), e.old, e.new, 1))
	write(s.t, s.path("overlay.json"), string(overlay))
	return s.path("overlay.json")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
