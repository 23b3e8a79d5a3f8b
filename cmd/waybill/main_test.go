//go:build linux

package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"waybill":      func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
		"waybill-load": func() { runLoad(context.Background(), os.Args[1]) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
