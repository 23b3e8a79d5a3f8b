//go:build linux

package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/control/controltest"
	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/flowstore"
)

func TestErrors(t *testing.T) {
	socket, _ := controltest.Serve(t, controltest.New(t))
	c, ctx := control.Client{Socket: socket}, context.Background()

	_, err := c.ApplyPolicy(ctx, "p.yaml", []byte("version: 2"))
	e := checkError(t, "bad policy", err, 422, "the policy has problems: 1", "")
	if len(e.Problems) != 1 || e.Problems[0].File != "p.yaml" || e.Problems[0].Hint == "" {
		t.Errorf("bad policy: got %+v", e.Problems)
	}
	_, err = c.ApplyPolicy(ctx, "p.yaml", make([]byte, 16<<20+1))
	checkError(t, "long policy", err, 413, "more than 16777216 bytes", "")
	_, err = c.Explain(ctx, explain.Question{})
	checkError(t, "explain nothing", err, 400, "no destination", `"dst"`)
	_, err = c.Run(ctx, control.RunRequest{})
	checkError(t, "run without a provider", err, 400, "no provider", "via")
	_, err = c.Run(ctx, control.RunRequest{Via: []string{"dpl"}})
	checkError(t, "unknown provider", err, 422, `no provider "dpl"`, `["adblock" "dlp"]`)
	_, err = c.SQL(ctx, "DELETE FROM flows")
	checkError(t, "sql that writes", err, 400, "only reading is allowed", "SELECT")
	_, err = c.SQL(ctx, "SELECT colour FROM flows")
	checkError(t, "bad sql", err, 400, "no such column", "docs/flows.md")
	for _, tt := range []struct{ method, target, body, message string }{
		{"GET", "/v1/flows?progam=curl", "", `progam=["curl"]`},
		{"GET", "/v1/flows?limit=1&limit=2", "", `limit=["1" "2"]`},
		{"GET", "/v1/flows?limit=0", "", `read limit "0"`},
		{"GET", "/v1/flows?limit=100001", "", `read limit "100001"`},
		{"GET", "/v1/flows?since=yesterday", "", `read since "yesterday"`},
		{"GET", "/v1/flows?until=1", "", `read until "1"`},
		{"GET", "/v1/flows?follow=perhaps", "", `read follow "perhaps"`},
		{"GET", "/v1/flows?follow=1&limit=1", "", "begins now"},
		{"GET", "/v1/flows/xyz", "", `flow id "xyz"`},
		{"POST", "/v1/sql", `{"qeury": ""}`, `unknown field "qeury"`},
		{"POST", "/v1/sql", `{} {}`, "more behind"},
		{"POST", "/v1/run", `via`, "read body"},
		{"DELETE", "/v1/policy", "", "there is no DELETE /v1/policy"},
	} {
		status, body := rootUser.curl(t, socket, "-X", tt.method, "-d", tt.body, "http://waybill"+tt.target)
		var e control.Error
		if err := json.Unmarshal([]byte(body), &e); err != nil || status[0] != '4' || !strings.Contains(e.Message, tt.message) || e.Hint == "" {
			t.Errorf("%s %s: got %s %s", tt.method, tt.target, status, body)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	ctx := context.Background()
	missing := control.Client{Socket: filepath.Join(t.TempDir(), "none.sock")}
	_, err := missing.Status(ctx)
	checkError(t, "no socket", err, 0, missing.Socket, "systemctl start waybill")
	if !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("got %v", err)
	}
	left := control.Client{Socket: filepath.Join(t.TempDir(), "left.sock")}
	leave(t, left.Socket)
	if _, err = left.Follow(ctx, flowstore.Query{}); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("a socket that was left behind: got %v", err)
	}
}

// TestStrangeServer: what is not a daemon gets an error, not a wrong answer.
func TestStrangeServer(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\n{":                              "read answer to GET /v1/version",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno": "404 Not Found",
		"HTTP/1.1 500 Oops\r\n\r\n{}":                           "500 Oops",
		"SSH-2.0\r\n":                                           "ask daemon at ",
	} {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Read(make([]byte, 1000))
				io.WriteString(c, text)
				c.Close()
			}
		}()
		if _, err := (control.Client{Socket: socket}).Version(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", text, err)
		}
		l.Close()
	}
}
