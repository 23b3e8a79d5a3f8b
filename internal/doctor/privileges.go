//go:build linux

package doctor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// initialUserNamespace is the inode number of the first user namespace: the
// kernel's PROC_USER_INIT_INO.
const initialUserNamespace = 0xeffffffd

var capabilities = []struct {
	name string
	bit  uint
	use  string
}{
	{"CAP_BPF", unix.CAP_BPF, "load programs and make maps"},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, "attach programs to cgroups"},
	{"CAP_PERFMON", unix.CAP_PERFMON, "let programs read which process connects"},
}

func (x *examination) privileges() []Finding {
	held, err := effective()
	if err != nil {
		return []Finding{unseen("the caller's capabilities", err)}
	}
	var findings []Finding
	for _, c := range capabilities {
		if held.has(c.bit) {
			findings = append(findings, Finding{Level: OK, Subject: c.name})
			continue
		}
		findings = append(findings, lacks(c.name, c.use))
	}
	if !held.has(unix.CAP_SYS_ADMIN) {
		findings = append(findings, Finding{
			Level: Info, Subject: "no CAP_SYS_ADMIN",
			Meaning: "Waybill does not need it. This report does, to name the programs of others.",
			Remedy:  "run waybill doctor as root",
		})
	}
	return append(findings, checkUserNamespace()...)
}

// mayLoad tells whether the caller has all that loading needs.
func mayLoad() (bool, error) {
	initial, err := inInitialUserNamespace()
	if err != nil || !initial {
		return false, err
	}
	held, err := effective()
	if err != nil {
		return false, err
	}
	for _, c := range capabilities {
		if !held.has(c.bit) {
			return false, nil
		}
	}
	return true, nil
}

type capabilitySet uint64

// has knows that the kernel lets CAP_SYS_ADMIN stand in for the two newer
// capabilities.
func (s capabilitySet) has(bit uint) bool {
	newer := bit == unix.CAP_BPF || bit == unix.CAP_PERFMON
	return s&(1<<bit) != 0 || newer && s&(1<<unix.CAP_SYS_ADMIN) != 0
}

func effective() (capabilitySet, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, err
	}
	return capabilitySet(data[1].Effective)<<32 | capabilitySet(data[0].Effective), nil
}

// lacks is a problem for root, who has been deprived of something, and no
// surprise for others.
func lacks(name, use string) Finding {
	f := Finding{
		Level: Info, Subject: "no " + name,
		Meaning: fmt.Sprintf("Who runs waybill needs it, to %s. Proxies do not.", use),
		Remedy:  "run waybill as root",
	}
	if os.Geteuid() == 0 {
		f.Level, f.Remedy = Problem, "give it to the container or the service (docker run --cap-add, CapabilityBoundingSet=)"
	}
	return f
}

// inInitialUserNamespace: BPF asks for capabilities in the initial user
// namespace. Root in another one only looks like root.
func inInitialUserNamespace() (bool, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/self/ns/user", &st)
	return st.Ino == initialUserNamespace, err
}

func checkUserNamespace() []Finding {
	initial, err := inInitialUserNamespace()
	switch {
	case err != nil:
		return []Finding{unseen("the user namespace", err)}
	case initial:
		return nil
	}
	return []Finding{{
		Level: Problem, Subject: "this process is in a user namespace of its own",
		Meaning: "Capabilities held here do not count for BPF: waybill can not load its programs.",
		Remedy:  "run waybill on the host, or in a container without user namespaces",
	}}
}
