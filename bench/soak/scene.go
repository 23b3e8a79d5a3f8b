//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/netns"
)

// scene is where a run takes place.
//
//	waybill-soak-PID/     the scope
//	├── app/              clients
//	├── daemon/           the daemon
//	├── parking/          the proxy that lets no handshake end
//	└── waybill/proxies/  the chain, started by the daemon
//
// The origin is this process, outside the scope.
type scene struct {
	root   *cgroup.Temporary
	netns  *netns.NetNS
	memory *memory
}

// childArg is the hidden first argument of this program in another role.
const childArg = "soak-child"

// gcPercent trades memory of the load's own for time.
const gcPercent = 800

// Roles.
const (
	roleClient  = "client"
	roleParker  = "parker"
	roleParking = "parking"
)

func play(role string, args []string) error {
	debug.SetGCPercent(gcPercent)
	switch role {
	case roleClient:
		return playClient(os.Stdin, os.Stdout)
	case roleParker:
		return playParker(args[0])
	case roleParking:
		return playParking(args[0])
	}
	return fmt.Errorf("play role %q: no such role", role)
}

// sysctls of the network namespace: as many ports as there are, used again
// while they wait, and connect() ends in about the time of deadline.
var sysctls = map[string]string{
	"net/ipv4/tcp_syn_retries":     "3", // after 1, 2, 4 and 8 s
	"net/ipv4/ip_local_port_range": "10000 65535",
	"net/ipv4/tcp_tw_reuse":        "1",
}

func newScene() (_ *scene, err error) {
	s := &scene{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.root, err = cgroup.CreateTemporary(fmt.Sprintf("waybill-soak-%d", os.Getpid())); err != nil {
		return nil, err
	}
	if s.netns, err = netns.New(originAddrs...); err != nil {
		return nil, err
	}
	if s.memory, err = newMemory(); err != nil {
		return nil, err
	}
	for _, dir := range []string{s.dir("app"), s.dir("daemon"), s.dir(parking), runDir, dataDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return s, s.inside(func() error {
		for name, value := range sysctls {
			if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// close ends all processes of the run.
func (s *scene) close() error {
	var errs []error
	if s.root != nil {
		errs = append(errs, s.root.Close())
	}
	if s.memory != nil {
		errs = append(errs, s.memory.close())
	}
	if s.netns != nil {
		errs = append(errs, s.netns.Close())
	}
	return errors.Join(errs...)
}

// dir is the directory of a cgroup in the scope.
func (s *scene) dir(name string) string { return filepath.Join(s.root.Dir, name) }

func (s *scene) proxyDir(provider string) string {
	if provider == parking {
		return s.dir(parking)
	}
	return s.dir(filepath.Join("waybill/proxies", provider))
}

// parkingPath is the parking provider's cgroup as policies name it.
func (s *scene) parkingPath() string {
	return "/" + filepath.Join(filepath.Base(s.root.Dir), parking)
}

func (s *scene) inside(f func() error) error { return s.netns.Do(f) }

// start starts a program in a cgroup of the scope and in the network namespace.
func (s *scene) start(cgroupName string, cmd *exec.Cmd) error {
	dir, err := os.Open(s.dir(cgroupName))
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	if err := s.inside(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", cmd, err)
	}
	return nil
}

// roleCommand is this program in another role.
func roleCommand(role string, args ...string) *exec.Cmd {
	return exec.Command("/proc/self/exe", append([]string{childArg, role}, args...)...)
}

// pid is the process of a provider's proxy; 0: none.
func (s *scene) pid(provider string) int {
	pids, err := cgroup.Processes(s.proxyDir(provider))
	if err != nil || len(pids) == 0 {
		return 0
	}
	return pids[0]
}
