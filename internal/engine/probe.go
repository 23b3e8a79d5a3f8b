//go:build linux

package engine

import (
	"errors"

	"github.com/cilium/ebpf"
)

// Feature is something of the kernel that the programs need.
type Feature struct {
	Name  string
	Since string // the Linux version that brought it

	// Err is nil if the kernel has the feature, a *FeatureError if it has
	// not, and otherwise the reason why it could not be asked.
	Err error
}

// Features asks the running kernel for everything that the programs need,
// oldest first.
func Features() []Feature {
	features := make([]Feature, 0, len(required))
	for _, f := range required {
		err := f.probe()
		if errors.Is(err, ebpf.ErrNotSupported) {
			err = &FeatureError{Feature: f.name, Since: f.since, Running: kernelRelease()}
		}
		features = append(features, Feature{Name: f.name, Since: f.since, Err: err})
	}
	return features
}

// TryLoad has the kernel verify the programs and frees them again. Nothing is
// attached. The error is that of Open.
func TryLoad() error {
	spec, err := prepare(Options{InFlight: 1})
	if err != nil {
		return err
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return explainLoadError(err)
	}
	c.Close()
	return nil
}
