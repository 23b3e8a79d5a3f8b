//go:build linux

package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/waybill-net/waybill/internal/cgroup"
)

func (x *examination) cgroups() []Finding {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2", "cgroup", "bpf"))
	if err != nil {
		return []Finding{unseen("the mounts", err)}
	}
	var v2, v1, bpf []*mountinfo.Info
	for _, m := range mounts {
		switch m.FSType {
		case "cgroup2":
			v2 = append(v2, m)
		case "cgroup":
			v1 = append(v1, m)
		case "bpf":
			bpf = append(bpf, m)
		}
	}
	findings := x.unified(v2)
	findings = append(findings, hybrid(v2, v1)...)
	return append(findings, checkPinning(bpf))
}

func (x *examination) unified(v2 []*mountinfo.Info) []Finding {
	if len(v2) == 0 {
		return []Finding{{
			Level: Problem, Subject: "cgroup v2 is not mounted",
			Meaning: "Waybill attaches to a cgroup of the v2 hierarchy. It needs none of its controllers.",
			Remedy:  "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
		}}
	}
	m := v2[0]
	findings := []Finding{{Level: OK, Subject: "cgroup v2 at " + m.Mountpoint}}
	if _, err := cgroup.Identify(x.scope); err != nil {
		findings = append(findings, Finding{
			Level: Problem, Subject: "cgroups can not be identified", Meaning: err.Error() + ".",
			Remedy: "run waybill in the host's cgroup namespace, with a scope below " + m.Mountpoint,
		})
	}
	if m.Root != "/" {
		findings = append(findings, Finding{
			Level: Info, Subject: fmt.Sprintf("%s shows only the part of the hierarchy below %s", m.Mountpoint, m.Root),
			Meaning: "Programs on the cgroups above it can not be seen from here. They run all the same.",
			Remedy:  "run waybill doctor where the whole hierarchy is mounted",
		})
	}
	if hasOption(m.Options, "ro") || hasOption(m.VFSOptions, "ro") {
		findings = append(findings, Finding{
			Level: Warning, Subject: m.Mountpoint + " is mounted read-only",
			Meaning: "Programs can be attached, but no cgroup can be made, so each provider's must be there already.",
			Remedy:  "mount -o remount,rw " + m.Mountpoint,
		})
	}
	return append(findings, delegation(m))
}

func delegation(m *mountinfo.Info) Finding {
	if hasOption(m.VFSOptions, "nsdelegate") {
		return Finding{Level: OK, Subject: "cgroup namespaces are boundaries (nsdelegate)"}
	}
	return Finding{
		Level: Info, Subject: m.Mountpoint + " is mounted without nsdelegate",
		Meaning: "A container with write access to the hierarchy can move its processes out of its own cgroup, " +
			"and with that out of the scope or into a provider's process set.",
		Remedy: "mount -o remount,nsdelegate " + m.Mountpoint,
	}
}

// hybrid looks for the two v1 controllers that share a field of the socket
// with the cgroup v2 association. Kernel commit 8520e224f547, in 5.15, gave
// each its own.
func hybrid(v2, v1 []*mountinfo.Info) []Finding {
	var findings []Finding
	for _, m := range v1 {
		if !hasOption(m.VFSOptions, "net_cls") && !hasOption(m.VFSOptions, "net_prio") {
			continue
		}
		f := Finding{
			Level: Info, Subject: "cgroup v1 net_cls or net_prio at " + m.Mountpoint,
			Meaning: "Before Linux 5.15, using it moved every new socket to the root cgroup, out of any scope. This kernel keeps both.",
		}
		if !atLeast(kernelRelease(), 5, 15) {
			f.Level = Problem
			f.Meaning = "On this kernel, as soon as it is used, new sockets count as the root cgroup's until the next boot: out of any scope."
			f.Remedy = "boot Linux 5.15 or later, or unmount it and boot again"
		}
		findings = append(findings, f)
	}
	if len(v1) > 0 && len(v2) > 0 && len(findings) == 0 {
		findings = append(findings, Finding{Level: OK, Subject: "cgroup v1 is mounted beside it, without net_cls and net_prio"})
	}
	return findings
}

func checkPinning(bpf []*mountinfo.Info) Finding {
	if slices.ContainsFunc(bpf, func(m *mountinfo.Info) bool { return m.Mountpoint == "/sys/fs/bpf" }) {
		return Finding{Level: OK, Subject: "the bpf file system at /sys/fs/bpf"}
	}
	return Finding{
		Level: Info, Subject: "no bpf file system at /sys/fs/bpf",
		Meaning: "Programs can not be pinned there: they end with the process that loaded them.",
		Remedy:  "mount -t bpf bpf /sys/fs/bpf",
	}
}

func hasOption(options, option string) bool {
	return slices.Contains(strings.Split(options, ","), option)
}
