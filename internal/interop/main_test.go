//go:build linux

// Package interop tests waybill with the proxies that people have: as they
// come from their makers, in every order, on the real kernel.
package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/inspect"
	"github.com/waybill-net/waybill/internal/preset"
)

// TestMain is also the entrance of the programs that the tests start: the
// presets run two parts of waybill itself, and the client must be a process
// of its own in a cgroup of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && runRole(os.Args[1], os.Args[2:]) {
		return
	}
	// The proxies inherit it: should nothing else end a loop, this does.
	limit := syscall.Rlimit{Cur: maxFiles, Max: maxFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const maxFiles = 1024

// runRole reports whether there is a program of this name.
func runRole(name string, args []string) bool {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch name {
	case "proxy":
		err = inspect.Run(ctx, args, inspect.Options{Output: os.Stdout})
	case "socks-server":
		err = preset.RunSOCKS(ctx, args[0])
	case quicClientRole:
		err = runQUICClient(args[0], args[1], args[2])
	case quicBlockRole:
		err = runQUICBlock(ctx, args)
	case quicNamesRole:
		err = runQUICNames(args[0], args[1])
	case quicRelayRole:
		err = runQUICRelay(ctx, args[0])
	case clientRole:
		err = json.NewEncoder(os.Stdout).Encode(runClient(args))
	default:
		return false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}
