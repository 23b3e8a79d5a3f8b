//go:build linux

package control_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/control"
	"github.com/waybill-net/waybill/internal/control/controltest"
	"github.com/waybill-net/waybill/internal/dns"
	"github.com/waybill-net/waybill/internal/flow"
)

// TestDocument runs every example of docs/api.md and compares the answers.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```sh\n(.*?)```\n\n```(json|text)\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if n := strings.Count(string(text), "```sh\n"); n < 14 || n != len(examples) {
		t.Fatalf("%d commands, %d of them with an answer", n, len(examples))
	}
	for _, request := range []string{
		"GET /v1/version", "GET /v1/status", "GET /v1/providers", "GET /v1/policy", "PUT /v1/policy", "POST /v1/policy/explain",
		"GET /v1/flows", "GET /v1/flows/ID", "POST /v1/sql", "POST /v1/run", "POST /v1/names", "GET /metrics",
	} {
		if !strings.Contains(string(text), "## "+request+"\n") && !strings.Contains(string(text), "`"+request+"`") {
			t.Errorf("%s is not in docs/api.md", request)
		}
	}
	b := controltest.New(t)
	socket, _ := controltest.Serve(t, b)
	names := controltest.ServeNames(t, &control.NamesServer{Learn: func(dns.Resolved) error { return nil }})
	done := make(chan struct{})
	defer close(done)
	go change(b, done)
	for _, example := range examples {
		command := strings.NewReplacer(control.DefaultSocket, socket, control.DefaultNamesSocket, names).Replace(example[1])
		got, err := exec.Command("sh", "-c", command).Output()
		if len(got) == 0 {
			t.Errorf("%s\ngot nothing, %v", example[1], err)
		}
		if want := example[3]; example[2] == "text" && string(got) != want || example[2] == "json" && !sameJSON(string(got), want) {
			t.Errorf("%s\ngot %s\nwant %s", example[1], got, want)
		}
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// change makes changes for followers without end.
func change(b *controltest.Backend, done chan struct{}) {
	for {
		select {
		case b.Changes <- controltest.Changed(flow.ID(8), controltest.Alice):
		case <-done:
			return
		}
	}
}
