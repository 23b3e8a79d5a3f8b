//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// roleVar makes the test binary the soak itself.
const roleVar = "WAYBILL_SOAK"

func TestMain(m *testing.M) {
	if os.Getenv(roleVar) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestSoak breaks everything at least once, in about a minute.
func TestSoak(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-duration", "36s", "-seed", "3", "-at-once", "16", "-long", "8", "-json")
	cmd.Env = append(os.Environ(), roleVar+"=1")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, &log)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	var text bytes.Buffer
	r.print(&text)
	t.Logf("%s", &text)
	if n := sum(r.Arrived); n < 100 {
		t.Errorf("%d flows arrived, want some", n)
	}
	caused := make(map[faultKind]bool)
	for _, f := range r.Faults {
		caused[f.Kind] = true
	}
	for _, k := range kinds {
		if !caused[k.kind] {
			t.Errorf("%s was not caused", k.kind)
		}
	}
	if sum(r.Explained) == 0 {
		t.Error("no flow was broken: the faults did not reach the proxies")
	}
}
