package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/windows"

	"github.com/waybill-net/waybill/internal/wfp"
)

// withAllRights is the remedy for what could not be seen.
const withAllRights = "run waybill doctor elevated, as an administrator"

// Examine makes every check. What the caller may not see is a finding too.
func Examine(ctx context.Context) ([]Finding, error) {
	var all []Finding
	for _, c := range []struct {
		name string
		find func() []Finding
	}{
		{"windows", checkWindows},
		{"privileges", checkPrivileges},
		{"winsock", func() []Finding { return checkWinsock(ctx) }},
		{"services", checkServices},
		{"redirectors", Redirectors},
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, f := range c.find() {
			f.Check = c.name
			all = append(all, f)
		}
	}
	return all, nil
}

func checkWindows() []Finding {
	v := windows.RtlGetVersion()
	f := Finding{Level: OK, Subject: fmt.Sprintf("Windows %d.%d, build %d", v.MajorVersion, v.MinorVersion, v.BuildNumber)}
	if v.MajorVersion < 6 || v.MajorVersion == 6 && v.MinorVersion < 2 {
		f.Level, f.Meaning = Problem, "Redirect records came with Windows 8 and Server 2012, which are 6.2."
		f.Remedy = "use a later Windows"
	}
	return []Finding{f}
}

func checkPrivileges() []Finding {
	if windows.GetCurrentProcessToken().IsElevated() {
		return []Finding{{Level: OK, Subject: "this process is elevated"}}
	}
	return []Finding{{
		Level: Warning, Subject: "this process is not elevated",
		Meaning: "To set redirect records a proxy must be, as Microsoft documents it; to read them, perhaps not.",
		Remedy:  "run proxies as services, or from an elevated prompt",
	}}
}

// checkWinsock asks a socket that is not connected: that it is not is the
// answer of a Winsock that knows the question.
func checkWinsock(ctx context.Context) []Finding {
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0, windows.WSA_FLAG_OVERLAPPED)
	if err != nil {
		return []Finding{unseen("Winsock", err)}
	}
	defer windows.Closesocket(s)
	_, err = wfp.Query(ctx, wfp.Handle(s), wfp.QueryRecords)
	for _, errno := range []error{wfp.EOPNOTSUPP, wfp.ENOPROTOOPT, wfp.ErrNotSupported} {
		if errors.Is(err, errno) {
			return []Finding{{
				Level: Problem, Subject: "Winsock does not know redirect records",
				Meaning: fmt.Sprintf("A socket that was asked for them answered: %v.", err),
				Remedy:  "use Windows 8 or later; if this is one, look for a layered service provider: netsh winsock show catalog",
			}}
		}
	}
	return []Finding{{Level: OK, Subject: fmt.Sprintf("Winsock knows redirect records: a socket without a connection answers %v", err)}}
}

// service is one that redirects connections, or without which nothing is.
type service struct {
	name, product string
	meaning       string
}

var services = []service{
	{"NetEbpfExt", "eBPF for Windows", "Its programs of type cgroup/connect4 and connect6 can redirect connections. All of its programs share one redirect handle for each family: of several, the first alone sees a flow."},
	{"GuestProxyAgent", "Azure Guest Proxy Agent", "It redirects connections to the addresses of Azure's metadata through eBPF for Windows, and sets no records."},
	{"WFPSamplerCallouts", "WFPSampler", "Microsoft's sample of callouts. Its proxy callouts attach the original destination in the form that waybill reads."},
	{"hns", "Host Networking Service", "Its L4WfpProxyPolicy redirects connections of containers. The original destination is told by SO_ORIGINAL_DST."},
	{"mullvad-split-tunnel", "Mullvad VPN split tunnelling", "Its driver moves connections of excluded programs out of the tunnel."},
}

func checkServices() []Finding {
	manager, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return []Finding{unseen("services", err)}
	}
	defer windows.CloseServiceHandle(manager)
	findings := []Finding{checkFilteringEngine(manager)}
	for _, s := range services {
		running, err := serviceRuns(manager, s.name)
		if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
			continue
		}
		if err != nil {
			findings = append(findings, unseen("service "+s.name, err))
			continue
		}
		f := Finding{Level: Info, Subject: fmt.Sprintf("%s is installed: service %s, which does not run", s.product, s.name), Meaning: s.meaning}
		if running {
			f.Subject = fmt.Sprintf("%s is here: service %s runs", s.product, s.name)
		}
		findings = append(findings, f)
	}
	return findings
}

func checkFilteringEngine(manager windows.Handle) Finding {
	running, err := serviceRuns(manager, "BFE")
	switch {
	case err == nil && running:
		return Finding{Level: OK, Subject: "the Base Filtering Engine runs"}
	case err == nil, errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST):
		return Finding{
			Level: Problem, Subject: "the Base Filtering Engine does not run",
			Meaning: "Without it no filter of the Windows Filtering Platform is in force.",
			Remedy:  "sc.exe start bfe",
		}
	}
	return unseen("the Base Filtering Engine", err)
}

func serviceRuns(manager windows.Handle, name string) (bool, error) {
	name16, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return false, err
	}
	s, err := windows.OpenService(manager, name16, windows.SERVICE_QUERY_STATUS)
	if err != nil {
		return false, err
	}
	defer windows.CloseServiceHandle(s)
	var status windows.SERVICE_STATUS
	if err := windows.QueryServiceStatus(s, &status); err != nil {
		return false, err
	}
	return status.CurrentState == windows.SERVICE_RUNNING, nil
}

// Redirectors lists the callouts where connections are redirected.
func Redirectors() []Finding {
	e, err := openEngine()
	if err != nil {
		return []Finding{unseen("the filter engine", err)}
	}
	defer e.close()
	redirectors, err := e.redirectors()
	if err != nil {
		return []Finding{unseen("callouts", err)}
	}
	if len(redirectors) == 0 {
		return []Finding{{
			Level: Info, Subject: "no callout at the layers where connections are redirected",
			Meaning: "Nobody redirects connections on this host: a proxy will get none.",
			Remedy:  "install a redirector, such as eBPF for Windows",
		}}
	}
	var findings []Finding
	for _, r := range redirectors {
		findings = append(findings, r.finding())
	}
	return findings
}

func (r redirector) finding() Finding {
	f := Finding{Level: Info, Subject: fmt.Sprintf("%s: callout %s, %s", strings.Join(r.layers, " and "), r.name, plural(r.filters, "filter"))}
	if r.provider != "" {
		f.Subject += ", of provider " + r.provider
	}
	switch {
	case !r.registered && r.filters > 0:
		f.Level = Warning
		f.Meaning = "Its driver is not there, and connections that its filters match are blocked, unless the filters say otherwise."
		f.Remedy = "start its driver, or remove its filters"
	case r.filters == 0:
		f.Meaning = "No filter leads to it: it redirects nothing."
	default:
		f.Meaning = "It sees new connections, and may redirect them. Its proxy gets records if it sets a redirect handle."
	}
	return f
}
