//go:build linux

package control_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/control/controltest"
	"github.com/waybill-net/waybill/internal/flow"
)

// person is somebody who asks.
type person struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
}

var (
	rootUser  = person{"root", 0, 0, nil}
	aMember   = person{"a member", controltest.Alice, controltest.Alice, []uint32{controltest.GID}}
	byGID     = person{"a member by his own group", controltest.Alice, controltest.GID, nil}
	openTo    = person{"a member to whom adblock is open", controltest.Alice, controltest.Alice, []uint32{7, controltest.GID, controltest.OpenGID}}
	aStranger = person{"a stranger", controltest.Alice, controltest.Alice, []uint32{controltest.OpenGID}}
	nobody    = person{"nobody", 65534, 65534, nil}
)

// curl asks as this person, and returns the status and the body.
func (p person) curl(t *testing.T, socket string, args ...string) (status, body string) {
	t.Helper()
	cmd := exec.Command("curl", append([]string{"-s", "--max-time", "20", "--unix-socket", socket, "-w", "%{stderr}%{http_code}"}, args...)...)
	var code strings.Builder
	cmd.Stderr = &code
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.gid, Groups: p.groups}}
	out, _ := cmd.Output() // curl fails when it is told to stop; the status says the rest
	return code.String(), string(out)
}

func TestAccess(t *testing.T) {
	socket, _ := controltest.Serve(t, controltest.New(t))
	// Strangers can not connect at all; the server does not rely on that.
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	run := func(via string) []string {
		return []string{"--max-time", "0.5", "-d", `{"via": ["` + via + `"]}`, "http://waybill/v1/run"}
	}
	get := func(path string) []string { return []string{"http://waybill" + path} }
	for _, tt := range []struct {
		what                         string
		args                         []string
		root, member, open, stranger string
	}{
		{"version", get("/v1/version"), "200", "200", "200", "403"},
		{"flows", get("/v1/flows"), "200", "200", "200", "403"},
		{"own flow", get("/v1/flows/2"), "200", "200", "200", "403"},
		{"another's flow", get("/v1/flows/3"), "200", "404", "404", "403"},
		{"root's flow", get("/v1/flows/1"), "200", "404", "404", "403"},
		{"nobody's flow", get("/v1/flows/4"), "200", "404", "404", "403"},
		{"no flow", get("/v1/flows/5"), "404", "404", "404", "403"},
		{"run", run("adblock"), "200", "403", "200", "403"},
		{"run of what is not open", run("dlp"), "200", "403", "403", "403"},
		{"run of nothing that is", run("nothing"), "422", "403", "403", "403"},
		{"status", get("/v1/status"), "200", "403", "403", "403"},
		{"providers", get("/v1/providers"), "200", "403", "403", "403"},
		{"policy", get("/v1/policy"), "200", "403", "403", "403"},
		{"apply", append(get("/v1/policy"), "-X", "PUT", "-d", "version: 1"), "200", "403", "403", "403"},
		{"explain", append(get("/v1/policy/explain"), "-d", `{"dst": "192.0.2.1:443"}`), "200", "403", "403", "403"},
		{"sql", append(get("/v1/sql"), "-d", `{"query": "SELECT 1"}`), "200", "403", "403", "403"},
		{"metrics", get("/metrics"), "200", "403", "403", "403"},
		{"what is not there", get("/v1/nothing"), "404", "403", "403", "403"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			for _, asks := range []struct {
				who  person
				want string
			}{
				{rootUser, tt.root},
				{aMember, tt.member},
				{byGID, tt.member},
				{openTo, tt.open},
				{aStranger, tt.stranger},
				{nobody, tt.stranger},
			} {
				status, body := asks.who.curl(t, socket, tt.args...)
				if status != asks.want {
					t.Errorf("%s: got %s %s, want %s", asks.who.name, status, body, asks.want)
				}
				if strings.HasPrefix(asks.want, "4") && !strings.Contains(body, `"error":"`) {
					t.Errorf("%s: no error in %q", asks.who.name, body)
				}
				if asks.want == "403" && !strings.Contains(body, `"hint":"`) {
					t.Errorf("%s: no hint in %q", asks.who.name, body)
				}
			}
		})
	}
}

// TestSocketMode: strangers can not even connect.
func TestSocketMode(t *testing.T) {
	socket, _ := controltest.Serve(t, controltest.New(t))
	if status, _ := aMember.curl(t, socket, "http://waybill/v1/version"); status != "200" {
		t.Errorf("a member: got %s", status)
	}
	if status, body := nobody.curl(t, socket, "http://waybill/v1/version"); status != "000" {
		t.Errorf("nobody: got %s %s", status, body)
	}
}

func TestOwnFlowsOnly(t *testing.T) {
	b := controltest.New(t)
	socket, _ := controltest.Serve(t, b)
	for _, query := range []string{"", "?limit=1", "?provider=adblock&program=curl&since=2026-01-01T00:00:00Z"} {
		_, body := aMember.curl(t, socket, "http://waybill/v1/flows"+query)
		if n := strings.Count(body, `"outcome"`); n != 1 || !strings.Contains(body, flow.ID(2).String()) {
			t.Errorf("%q: got %s", query, body)
		}
	}
	_, body := rootUser.curl(t, socket, "http://waybill/v1/flows")
	if n := strings.Count(body, `"outcome"`); n != 4 {
		t.Errorf("root: got %d flows: %s", n, body)
	}
	// That another's flow exists does not show.
	_, others := aMember.curl(t, socket, "http://waybill/v1/flows/3")
	_, none := aMember.curl(t, socket, "http://waybill/v1/flows/5")
	if strings.ReplaceAll(others, flow.ID(3).String(), flow.ID(5).String()) != none {
		t.Errorf("another's flow: %s, no flow: %s", others, none)
	}
}

func TestFollowsOwnFlowsOnly(t *testing.T) {
	b := controltest.New(t)
	socket, _ := controltest.Serve(t, b)
	b.FollowError = &control.Error{Message: "enough"}
	got := make(chan string, 1)
	go func() {
		_, body := aMember.curl(t, socket, "http://waybill/v1/flows?follow=1")
		got <- body
	}()
	for id, uid := range []uint32{0, 0, controltest.Alice + 1, controltest.Alice, 0} {
		send(t, b, controltest.Changed(flow.ID(id+1), uid))
	}
	unknown := controltest.Changed(9, controltest.Alice)
	unknown.Process = flow.Process{}
	send(t, b, unknown)
	send(t, b, flow.Flow{})
	body := controltest.Within(t, got, "end of the stream")
	want := fmt.Sprintf(`{"id":"%s",`, flow.ID(4))
	if lines := strings.Split(body, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], want) || lines[1] != `{"error":"enough"}` {
		t.Errorf("got %s", body)
	}
}

// send gives a change to a follower.
func send(t *testing.T, b *controltest.Backend, f flow.Flow) {
	t.Helper()
	sent := make(chan bool, 1)
	go func() {
		b.Changes <- f
		sent <- true
	}()
	controltest.Within(t, sent, "follower")
}
