//go:build linux

package interop

import (
	"os"
	"os/exec"
	"testing"
)

// buildSingBox builds sing-box from source, by a module of its own, and
// returns the directory that it is in.
func buildSingBox(t *testing.T) string {
	t.Helper()
	dir := openDir(t)
	build := exec.Command("go", "build", "-C", "testdata/sing-box", "-o", dir, "github.com/sagernet/sing-box/cmd/sing-box")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build sing-box: %v\n%s", err, out)
	}
	return dir
}

// TestSingBox has sing-box, a proxy in Go, alone and beside others.
func TestSingBox(t *testing.T) {
	t.Setenv("PATH", buildSingBox(t)+":"+os.Getenv("PATH"))
	s := newStage(t, []kind{
		{name: "sing-box", preset: "sing-box"},
		{name: "haproxy", preset: "haproxy"},
		{name: "inspect", preset: "inspect"},
	})
	s.runMatrix(t, [][]string{
		{"sing-box"},
		{"sing-box", "haproxy"},
		{"haproxy", "sing-box"},
		{"sing-box", "inspect"},
		{"inspect", "sing-box"},
	})
}
