//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Where the proxies listen, for IPv4 and IPv6. Ephemeral ports begin above: see
// scene.go.
var proxyPorts = map[string]int{"first": 7001, "middle": 7002, "last": 7003, parking: 7009}

func listen4(name string) string { return fmt.Sprintf("127.0.0.1:%d", proxyPorts[name]) }
func listen6(name string) string { return fmt.Sprintf("[::1]:%d", proxyPorts[name]) }

const (
	parking     = "parking" // a provider whose proxy lets no handshake end
	parkingDst  = "192.0.2.1:9"
	parkingPort = 9
)

var (
	policyPath  = filepath.Join(workDir, "policy.yaml")
	haproxyPath = filepath.Join(workDir, "haproxy.cfg")
)

// policyText is one of many policies that treat the soak's flows alike.
// parkingCgroup is a path in the hierarchy.
func (s *scene) policyText(variant int) string {
	var b strings.Builder
	b.WriteString("version: 1\nproviders:\n")
	for i, name := range chain {
		emulate := ""
		if name == unaware {
			emulate = ", emulate: tproxy" // HAProxy asks for no SO_ORIGINAL_DST of IPv6
		}
		fmt.Fprintf(&b, "  - {name: %s, weight: %d, proxy: {listen: %q, listen6: %q}, processes: {exec: [/bin/sh, -c, %q]}%s}\n",
			name, 300-100*i, listen4(name), listen6(name), s.proxyCommand(name), emulate)
	}
	fmt.Fprintf(&b, "  - {name: %s, weight: 400, proxy: {listen: %q}, processes: {cgroup: %s}}\n", parking, listen4(parking), s.parkingPath())
	b.WriteString("filters:\n")
	ports := fmt.Sprintf("%d-%d", originPorts[0], originPorts[len(originPorts)-1])
	for _, name := range chain {
		context := ""
		if name != unaware {
			context = fmt.Sprintf(", context: \"variant %d\"", variant) // some of what travels has one
		}
		fmt.Fprintf(&b, "  - {name: %s, provider: %[1]s, match: {port: %q, destination: [\"192.0.2.0/24\", \"2001:db8::/32\"]}%s}\n", name, ports, context)
	}
	fmt.Fprintf(&b, "  - {name: %s, provider: %[1]s, match: {port: %d, destination: \"192.0.2.0/24\"}}\n", parking, parkingPort)
	for i := range variant % 50 {
		fmt.Fprintf(&b, "  - {name: other-%d, provider: first, match: {port: %d, user: nobody}}\n", i, 20000+variant%1000+i)
	}
	return b.String()
}

// proxyCommand is a proxy that prints nothing of each connection. It leaves the
// daemon's memory cgroup: that may be starved while a proxy comes back.
func (s *scene) proxyCommand(name string) string {
	join := s.memory.join(memoryProxies)
	if name == unaware {
		return join + "exec haproxy -db -f " + haproxyPath + " >/dev/null"
	}
	return join + "exec " + waybillPath + " proxy " + listen4(name) + " " + listen6(name) + " >/dev/null"
}

// As in the preset, but for the log.
const haproxyConfig = `global
    maxconn 8000
defaults
    mode tcp
    timeout connect 30s
    timeout client  1h
    timeout server  1h
frontend redirected
    bind %s
    bind %s
    # A connection straight to these addresses would be one of HAProxy to itself, for ever.
    tcp-request connection reject if { dst 127.0.0.1 ::1 } { dst_port 7002 }
    default_backend origin
backend origin
    # Address and port 0: those that the client asked for.
    server origin 0.0.0.0:0
`

func (s *scene) writeConfigs() error {
	if err := os.WriteFile(haproxyPath, fmt.Appendf(nil, haproxyConfig, listen4(unaware), listen6(unaware)), 0o644); err != nil {
		return err
	}
	return s.writePolicy(0)
}

func (s *scene) writePolicy(variant int) error {
	return os.WriteFile(policyPath, []byte(s.policyText(variant)), 0o644)
}
