package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/standin"
)

func TestMain(m *testing.M) {
	if err := standin.ServeOrigin(); err != nil {
		fmt.Fprintln(os.Stderr, "serve the origin:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestReport: all questions are asked, of the stand-in, whose answers are known.
func TestReport(t *testing.T) {
	standin.Redirect(t, standin.Policy{}, 7001)
	kept, err := os.CreateTemp("", "waybill-test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(kept.Name())
	kept.WriteString("these are no records")
	kept.Close()
	var out strings.Builder
	if err := run([]string{"-origin", "192.0.2.1:8080", "-keep", kept.Name()}, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"# waybill-wfpcheck\n\nWindows 10.0.",
		"| b | records of an accepted socket, not redirected | error 10022, 0 returned |",
		"| b | context of a listener | error 10057, 0 returned |",
		"| c | SET of garbage | error 10022, ",
		"| f | getpeername of the application's socket | 127.0.0.1:7001 |", // as Wine has it
		"| a, e | records, room 65536 | success, 152 returned |",
		"| a | records, room 151 | error 122, 152 returned |",
		"| a | context, no buffer | error 122, 256 returned |",
		"| — | the context has the form of Microsoft's sample | 192.0.2.1:8080 |",
		"| i | records of a duplicated socket | ",
		"| c, d | SET on TCP | success, 156 returned |",
		"| c | SET on TCP after bind | error 10022, ",
		"| c, d | SET on UDP | error 10022, ",
		"| c | SET of altered records | error 10022, ",
		"| c, e | the next connect, with records | it did not come back |",
		"| c, e | the next connect, without | it came back, records: success, 152 returned |",
		"| c | SET of the records in ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	if b, err := os.ReadFile(kept.Name()); err != nil || len(b) != 152 {
		t.Errorf("%d bytes were kept, %v", len(b), err)
	}
}
