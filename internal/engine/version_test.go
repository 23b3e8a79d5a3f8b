//go:build linux

package engine

import (
	"errors"
	"testing"

	"github.com/waybill-net/waybill/internal/testenv"
)

// TestStateOfAnotherVersion: maps of another shape are not adopted, and the
// error says whose they are. They can be taken away all the same.
func TestStateOfAnotherVersion(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	opts := Options{Scope: env.Scope, State: env.StateDir(), Version: "1.0"}
	e, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps[kernelMapCounters].MaxEntries++ // as a build with one counter more
	if err := errors.Join(e.putMeta(abi(spec), "2.0"), e.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(opts)
	var other *VersionError
	if !errors.As(err, &other) || other.Made != "2.0" || other.This != "1.0" {
		t.Errorf("open: %v", err)
	}
	if err := Remove(opts.State); err != nil {
		t.Error(err)
	}
	if e, err = Open(opts); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Close(), Remove(opts.State)); err != nil {
		t.Error(err)
	}
}
