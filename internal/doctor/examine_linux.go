package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/engine"
)

// withAllRights is the remedy for what could not be seen.
const withAllRights = "run waybill doctor as root"

// Options for [Examine].
type Options struct {
	// Scope is the directory of the cgroup that waybill covers, or will.
	// Default: the root of the cgroup v2 hierarchy.
	Scope string

	// Providers has the proxy addresses that are in the policy. Who listens
	// there is not reported.
	Providers []netip.AddrPort
}

// Examine makes every check, in the network namespace of the calling thread.
// What the caller may not see is a finding too. An error means that there was
// nothing to examine: the scope is no cgroup, or ctx is done.
func Examine(ctx context.Context, o Options) ([]Finding, error) {
	x := examination{ctx: ctx, providers: o.Providers}
	if err := x.findScope(o.Scope); err != nil {
		return nil, err
	}
	x.processes = readProcesses(ctx)
	checks := []struct {
		name string
		find func() []Finding
	}{
		{"kernel", x.kernel},
		{"privileges", x.privileges},
		{"cgroups", x.cgroups},
		{"programs", x.programs},
		{"packet filter", x.packetFilter},
		{"products", x.products}, // after the two whose findings it explains
		{"proxies", x.proxies},
		{"host", x.host},
	}
	var all []Finding
	for _, c := range checks {
		findings := c.find()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, f := range findings {
			f.Check = c.name
			all = append(all, f)
		}
	}
	return all, nil
}

// examination is one run. Later checks use what earlier ones saw.
type examination struct {
	ctx       context.Context
	providers []netip.AddrPort

	root      string // where cgroup v2 is mounted; empty: nowhere
	scope     string
	processes processes

	attached []engine.Attached
	chains   []*nftables.Chain
	legacy   []string // chains of the legacy iptables
}

func (x *examination) findScope(scope string) error {
	root, err := cgroup.Root()
	if err != nil && scope == "" {
		return nil // the check of the cgroups says so
	}
	x.root, x.scope = root, root
	if scope == "" {
		return nil
	}
	if scope, err = filepath.Abs(scope); err == nil {
		scope, err = filepath.EvalSymlinks(scope)
	}
	if err != nil {
		return fmt.Errorf("examine scope: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(scope, &st); err != nil {
		return fmt.Errorf("examine scope %s: %w", scope, err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("examine scope %s: not a directory of the cgroup v2 file system", scope)
	}
	x.scope = scope
	return nil
}
