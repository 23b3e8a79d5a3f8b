//go:build linux

package engine

import (
	"testing"

	"github.com/cilium/ebpf"
)

// maxVerified is a tenth of what the verifier is willing to walk: the
// verifiers of other kernels walk more paths through the same program.
const maxVerified = 100_000

// TestVerifierEffort notices a program that has become hard to verify, which
// other kernels would refuse.
func TestVerifierEffort(t *testing.T) {
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, p := range c.Programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, known := info.VerifiedInstructions()
		t.Logf("%s: %d instructions walked", name, n)
		if !known || n > maxVerified {
			t.Errorf("%s: the verifier walked %d instructions, at most %d", name, n, maxVerified)
		}
	}
}
