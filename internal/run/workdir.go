//go:build linux

package run

import (
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// runtimeDir is a file system that every user can pass through and that does
// not outlive the boot.
const runtimeDir = "/run"

// removeScript waits until its standard input ends and then removes the
// directory $1. Dying processes may still write into it: it tries again.
const removeScript = `
read -r line
tries=0
while [ $tries -lt 300 ]; do
	rm -rf -- "$1" 2>/dev/null && exit 0
	sleep 0.1
	tries=$((tries + 1))
done
`

// workDir is a directory that does not outlive the process that made it, not
// even if that is killed: as with cgroup.Temporary, a process watches over it.
// Everybody may pass through; the directories in it are private.
type workDir struct {
	path    string
	janitor *exec.Cmd
	alive   io.WriteCloser // ends with this process
}

func newWorkDir(name string) (*workDir, error) {
	path := filepath.Join(runtimeDir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make a working directory: %w", err)
	}
	w := &workDir{path: path, janitor: exec.Command("/bin/sh", "-c", removeScript, "waybill-janitor", path)}
	w.janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C must not reach it
	err := os.Chmod(path, 0o755)                               // whatever our umask is
	if err == nil {
		w.alive, err = w.janitor.StdinPipe()
	}
	if err == nil {
		err = w.janitor.Start()
	}
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("start the janitor of %s: %w", path, err)
	}
	return w, nil
}

func (w *workDir) close() error {
	err := os.RemoveAll(w.path)
	w.alive.Close()
	w.janitor.Wait()
	return err
}

// publishCertificate copies a certificate from the working directory of the
// proxy name to where everybody can read it. The proxy owns that directory
// and has no rights: nothing but a certificate is taken from there, and no
// link out of it is followed.
func (w *workDir) publishCertificate(name, from string) (string, error) {
	dir, err := os.OpenRoot(filepath.Join(w.path, name))
	if err != nil {
		return "", err
	}
	defer dir.Close()
	b, err := dir.ReadFile(filepath.Base(from))
	if err != nil {
		return "", fmt.Errorf("read the certificate of proxy %s: %w", name, err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", fmt.Errorf("read the certificate of proxy %s: there is none in %s", name, from)
	}
	to := filepath.Join(w.path, name+"-ca.pem")
	if err := os.WriteFile(to, pem.EncodeToMemory(block), 0o644); err != nil {
		return "", err
	}
	return to, os.Chmod(to, 0o644)
}
