//go:build linux

package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/engine"
)

// The oldest kernel on which waybill is tested.
const minMajor, minMinor = 6, 1

func (x *examination) kernel() []Finding {
	findings := []Finding{checkRelease(), checkJIT(), checkMPTCP()}
	if may, err := mayLoad(); !may {
		// Without the privilege the answers would be about that.
		return append(findings, unseen("whether the kernel accepts waybill's programs", cmp.Or(err, fs.ErrPermission)))
	}
	for _, f := range engine.Features() {
		findings = append(findings, describeFeature(f))
	}
	return append(findings, checkLoad())
}

func checkRelease() Finding {
	release := kernelRelease()
	f := Finding{Level: OK, Subject: "Linux " + release}
	if !atLeast(release, minMajor, minMinor) {
		f.Level = Warning
		f.Meaning = fmt.Sprintf("Waybill is tested on Linux %d.%d and later. It asks for features, not for versions, so a kernel "+
			"with features ported back can do; the lines below tell.", minMajor, minMinor)
		f.Remedy = "boot a later kernel"
	}
	return f
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown version"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// atLeast reads the first two numbers of a release such as "6.1.0-18-amd64".
func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

func describeFeature(f engine.Feature) Finding {
	subject := fmt.Sprintf("%s (Linux %s)", f.Name, f.Since)
	var missing *engine.FeatureError
	switch {
	case f.Err == nil:
		return Finding{Level: OK, Subject: subject}
	case errors.As(f.Err, &missing):
		return Finding{
			Level: Problem, Subject: subject + " is missing",
			Meaning: "Waybill's programs use it. The kernel will not load them.",
			Remedy:  "boot Linux 6.1 or later, as in Debian 12, with CONFIG_DEBUG_INFO_BTF",
		}
	}
	// The probe is a small program, and a kernel can refuse it for a reason
	// of its own. The next check loads the real ones.
	return Finding{Level: Info, Subject: subject + " could not be asked", Meaning: firstLine(f.Err)}
}

// checkLoad lets the verifier read the real programs: no list of features can
// say more.
func checkLoad() Finding {
	err := engine.TryLoad()
	var missing *engine.FeatureError
	switch {
	case err == nil:
		return Finding{Level: OK, Subject: "the kernel accepts waybill's programs"}
	case errors.As(err, &missing):
		return Finding{
			Level: Problem, Subject: "the kernel refuses waybill's programs", Meaning: missing.Error() + ".",
			Remedy: "boot Linux 6.1 or later, as in Debian 12",
		}
	case errors.Is(err, fs.ErrPermission):
		return unseen("whether the kernel accepts waybill's programs", err)
	}
	return Finding{
		Level: Problem, Subject: "the kernel refuses waybill's programs", Meaning: firstLine(err),
		Remedy: "report it, with this line and the kernel's version",
	}
}

// firstLine keeps the verifier's log, which can be pages, out of a finding.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func checkJIT() Finding {
	const file = "/proc/sys/net/core/bpf_jit_enable"
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Only the first network namespace has it.
		return Finding{Level: Info, Subject: "net.core.bpf_jit_enable can not be seen from this network namespace"}
	case err != nil:
		return unseen("net.core.bpf_jit_enable", err)
	case strings.TrimSpace(string(b)) == "0":
		return Finding{
			Level: Warning, Subject: "BPF programs are interpreted",
			Meaning: "net.core.bpf_jit_enable is 0. Every connect(), getsockopt() and setsockopt() in the scope is slower.",
			Remedy:  "sysctl -w net.core.bpf_jit_enable=1",
		}
	}
	return Finding{Level: OK, Subject: "BPF programs are compiled (net.core.bpf_jit_enable)"}
}

func checkMPTCP() Finding {
	b, err := os.ReadFile("/proc/sys/net/mptcp/enabled")
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(b)) == "0":
		return Finding{Level: OK, Subject: "MPTCP is off"}
	case err != nil:
		return unseen("net.mptcp.enabled", err)
	}
	return Finding{
		Level: Info, Subject: "MPTCP is on (net.mptcp.enabled)",
		Meaning: "Listeners of Go 1.24 and later accept MPTCP. When the client speaks it too, the socket that such a proxy " +
			"accepts passes no options of ours on: it has no records, and SO_ORIGINAL_DST fails. Clients with plain TCP are not affected.",
		Remedy: "listen with waybill.Listen, start Go proxies with GODEBUG=multipathtcp=0, or sysctl -w net.mptcp.enabled=0",
	}
}
