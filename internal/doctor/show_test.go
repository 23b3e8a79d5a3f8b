package doctor_test

import (
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/doctor"
)

var shown = []doctor.Finding{
	{Check: "kernel", Level: doctor.OK, Subject: "Linux 6.12", Meaning: "not printed"},
	{Check: "kernel", Level: doctor.Info, Subject: "MPTCP is on", Meaning: strings.Repeat("Word by word. ", 20), Remedy: strings.Repeat("step ", 50)},
	{Check: "programs", Level: doctor.Problem, Subject: "connect4 of " + strings.Repeat("/long", 30) + ": program x"},
}

func TestShow(t *testing.T) {
	var b strings.Builder
	if err := doctor.Show(&b, shown, false); err != nil {
		t.Fatal(err)
	}
	out := b.String()
	for _, want := range []string{
		"kernel\n  ok       Linux 6.12\n  info     MPTCP is on\n           Word by",
		"\n           do: step step",
		"\n               step",
		"programs\n  problem  connect4 of\n           /long/long",
		"\n\n1 problem, 0 warnings, 1 to know\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if words := strings.Fields(line); len(line) > 101 && len(words) > 1 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "not printed") || strings.Count(out, "kernel\n") != 1 {
		t.Error(out)
	}
	b.Reset()
	if err := doctor.Show(&b, shown, true); err != nil || !strings.Contains(b.String(), "\x1b[1;31mproblem\x1b[0m") {
		t.Errorf("%v: %q", err, b.String())
	}
}
