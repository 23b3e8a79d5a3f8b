//go:build transparency

package transparency

import (
	"path/filepath"
	"testing"

	"github.com/waybill-net/waybill/internal/testenv"
)

// TestGoUDP runs Go's own tests of package net where all UDP is redirected, and
// no TCP.
func TestGoUDP(t *testing.T) {
	s := newScene(t, "udp.yaml")
	binary, dir := suite{name: "net", pkg: "net"}.compile(s)
	c := &comparison{scene: s, env: testenv.New(t), dir: dir, command: func(pattern string) []string {
		return []string{"sh", filepath.Join(testdata(t), "each.sh"), binary, pattern}
	}}
	c.compare(".", readDocument(t).rows("Other tests of UDP", "net"), 12)
}

// TestPythonUDP runs those of CPython.
func TestPythonUDP(t *testing.T) {
	document := readDocument(t)
	for _, tt := range []struct {
		name, pattern string
		args          []string
		least         int
	}{
		{"test_socket", `^RecvmsgUDP6?Test\.testRecvmsg$`, nil, 2},
		{"test_socket, edited", ".", []string{"--any-address"}, 90},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &comparison{scene: newScene(t, "udp.yaml"), env: testenv.New(t), command: func(pattern string) []string {
				return append(append([]string{"/usr/bin/python3", filepath.Join(testdata(t), "udp_tests.py")}, tt.args...), pattern)
			}}
			c.compare(tt.pattern, document.rows("Other tests of UDP", tt.name), tt.least)
		})
	}
}
