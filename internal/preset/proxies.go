//go:build linux

package preset

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/inspect"
	"github.com/waybill-net/waybill/internal/policy"
)

func inspectPreset() *Preset {
	return &Preset{
		Name:  "inspect",
		About: "waybill's own: says what each connection is, and passes it on",
		UDP:   true,
		Options: []Option{
			{"block", "nothing", "file with names of hosts, one a line, that are not answered for nor, over QUIC, connected to"},
			{"answer", "nxdomain", "to questions about them: nxdomain, zero (0.0.0.0 and ::) or refused"},
		},
		prepare: prepareInspect,
	}
}

func prepareInspect(w *workplace) ([]Process, error) {
	args := []string{"proxy"}
	if block := w.Options["block"]; block != "" {
		list, err := w.copyIn(block, "block.txt")
		if err != nil {
			return nil, err
		}
		args = append(args, "--block", list)
	}
	if answer := w.Options["answer"]; answer != "" {
		args = append(args, "--answer", answer)
	}
	if w.UDP { // before TCP, for which somebody waits
		for _, a := range w.listens() {
			args = append(args, inspect.UDP(a.String()))
		}
	}
	for _, a := range w.listens() {
		args = append(args, a.String())
	}
	c := w.self(args...)
	if w.Names != "" {
		c.Env = append(c.Env, control.NamesVariable+"="+w.Names)
	}
	return []Process{{c, w.listens()}}, nil
}

func mitmproxy() *Preset {
	return &Preset{
		Name:    "mitmproxy",
		About:   "shows HTTP and HTTPS requests; programs must trust its certificate",
		Program: "mitmdump",
		Package: "mitmproxy",
		Options: []Option{
			{"trust", "the usual authorities", "file with the certificates of the authorities to trust instead, for origins of your own"},
			{"pass", "nothing", "pattern of host names and addresses, such as \\.example$, whose connections are passed on unopened"},
		},
		prepare: prepareMitmproxy,
	}
}

func prepareMitmproxy(w *workplace) (processes []Process, err error) {
	w.out.CA = filepath.Join(w.Dir, "mitmproxy-ca-cert.pem")
	args := []string{
		"--mode", "transparent",
		"--set", "confdir=" + w.Dir,
		"--set", "termlog_verbosity=warn", // the requests themselves are shown all the same
		"--set", "stream_large_bodies=1m", // or a download would be in memory before its first byte is passed on
	}
	if trust := w.Options["trust"]; trust != "" {
		if trust, err = w.copyIn(trust, "trust.pem"); err != nil {
			return nil, err
		}
		args = append(args, "--set", "ssl_verify_upstream_trusted_ca="+trust)
	}
	if pass := w.Options["pass"]; pass != "" {
		args = append(args, "--ignore-hosts", pass)
	}
	// Versions before 9 listen on one address only. The second process finds
	// the certificates that the first has made.
	for _, a := range w.listens() {
		c := w.command(append(args[:len(args):len(args)],
			"--listen-host", a.Addr().String(), "--listen-port", strconv.Itoa(int(a.Port())))...)
		c.Env = append(c.Env, "PYTHONUNBUFFERED=1")
		processes = append(processes, Process{c, []netip.AddrPort{a}})
	}
	return processes, nil
}

func haproxy() *Preset {
	return &Preset{
		Name:    "haproxy",
		About:   "passes TCP on and says where to; in HTTP mode, what is asked for",
		Program: "haproxy",
		Package: "haproxy",
		Options: []Option{
			{"mode", "tcp", "tcp or http"},
			{"ports", "80", "in HTTP mode, ports on which programs speak HTTP without TLS"},
		},
		// It asks for SO_ORIGINAL_DST on IPv4 connections only, but takes the
		// address of its own end for the destination if that has no answer.
		Emulate: policy.EmulateTPROXY,
		users:   []string{"haproxy"},
		prepare: func(w *workplace) ([]Process, error) {
			d := w.data()
			switch mode := w.Options["mode"]; mode {
			case "", "tcp":
			case "http":
				d.HTTP, w.out.Ports = true, []policy.PortRange{policy.Port(80)}
			default:
				return nil, fmt.Errorf("set haproxy.mode: %q is neither tcp nor http", mode)
			}
			if err := w.setPorts("ports"); err != nil {
				return nil, err
			}
			config, err := w.write("haproxy.cfg", d)
			if err != nil {
				return nil, err
			}
			return []Process{{w.command("-db", "-f", config), w.listens()}}, nil
		},
	}
}

// nginxStream is where Debian has the module that passes TCP on. The nginx of
// other makers has it built in.
const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

func nginx() *Preset {
	return &Preset{
		Name:    "nginx",
		About:   "passes TCP on and says where to",
		Program: "nginx",
		Package: "nginx-light libnginx-mod-stream",
		Emulate: policy.EmulateTPROXY,
		users:   []string{"www-data", "nginx"},
		prepare: func(w *workplace) ([]Process, error) {
			d := w.data()
			if _, err := os.Stat(nginxStream); err == nil {
				d.Module = nginxStream
			}
			config, err := w.write("nginx.conf", d)
			if err != nil {
				return nil, err
			}
			return []Process{{w.command("-e", "stderr", "-p", w.Dir, "-c", config), w.listens()}}, nil
		},
	}
}

func squid() *Preset {
	return &Preset{
		Name:    "squid",
		About:   "HTTP on port 80, with an access log",
		Program: "squid",
		Package: "squid",
		Options: []Option{{"ports", "80", "ports on which programs speak HTTP without TLS"}},
		ports:   []policy.PortRange{policy.Port(80)},
		users:   []string{"proxy", "squid"},
		prepare: func(w *workplace) ([]Process, error) {
			if err := w.setPorts("ports"); err != nil {
				return nil, err
			}
			d := w.data()
			port, err := FreePort(w.Listen.Addr())
			if err != nil {
				return nil, err
			}
			d.Forward = netip.AddrPortFrom(w.Listen.Addr(), port)
			config, err := w.write("squid.conf", d)
			if err != nil {
				return nil, err
			}
			return []Process{{w.command("-N", "-f", config), w.listens()}}, nil
		},
	}
}

func redsocks() *Preset {
	return &Preset{
		Name:     "redsocks",
		About:    "sends TCP by a SOCKS5 server; without one, by a small one of waybill's own",
		Program:  "redsocks",
		Package:  "redsocks",
		Options:  []Option{{"upstream", "waybill's own", "address and port of the SOCKS5 server"}},
		IPv4Only: true,
		users:    []string{"redsocks"},
		prepare:  prepareRedsocks,
	}
}

func prepareRedsocks(w *workplace) (processes []Process, err error) {
	d := w.data()
	if upstream := w.Options["upstream"]; upstream != "" {
		if d.Upstream, err = netip.ParseAddrPort(upstream); err != nil {
			return nil, err
		}
	} else {
		port, err := FreePort(w.Listen.Addr())
		if err != nil {
			return nil, err
		}
		d.Upstream = netip.AddrPortFrom(w.Listen.Addr(), port)
		socks := w.self("socks-server", d.Upstream.String())
		socks.Name = "redsocks-upstream"
		processes = []Process{{socks, []netip.AddrPort{d.Upstream}}}
	}
	config, err := w.write("redsocks.conf", d)
	if err != nil {
		return nil, err
	}
	return append(processes, Process{w.command("-c", config), w.listens()}), nil
}

func singBox() *Preset {
	return &Preset{
		Name:    "sing-box",
		About:   "passes TCP on by sing-box",
		Program: "sing-box",
		Source:  "https://sing-box.sagernet.org/installation/package-manager/",
		prepare: func(w *workplace) ([]Process, error) {
			config, err := w.write("sing-box.json", w.data())
			if err != nil {
				return nil, err
			}
			return []Process{{w.command("run", "--disable-color", "-c", config), w.listens()}}, nil
		},
	}
}

func envoy() *Preset {
	return &Preset{
		Name:    "envoy",
		About:   "passes TCP on and says how much",
		Program: "envoy",
		Source:  "https://www.envoyproxy.io/docs/envoy/latest/start/install",
		prepare: func(w *workplace) ([]Process, error) {
			config, err := w.write("envoy.yaml", w.data())
			if err != nil {
				return nil, err
			}
			// Several on one host would share names in shared memory.
			return []Process{{w.command("-c", config, "--disable-hot-restart", "--log-level", "warning"), w.listens()}}, nil
		},
	}
}
