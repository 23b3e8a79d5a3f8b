package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestSingBox has sing-box, a proxy in Go, alone and beside others. It is
// built from source, by a module of its own.
func TestSingBox(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-C", "testdata/sing-box", "-o", filepath.Join(dir, "sing-box"), "github.com/sagernet/sing-box/cmd/sing-box")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build sing-box: %v\n%s", err, out)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
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
