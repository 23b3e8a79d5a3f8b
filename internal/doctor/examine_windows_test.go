package doctor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/doctor"
)

// TestExamine runs under Wine, whose filter engine is empty, with the stand-in
// for Winsock.
func TestExamine(t *testing.T) {
	findings, err := doctor.Examine(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []string{"windows", "privileges", "winsock", "services", "redirectors"} {
		i := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.Check == check })
		if i < 0 {
			t.Errorf("nothing about %s", check)
			continue
		}
		t.Logf("%+v", findings[i])
	}
	known := slices.ContainsFunc(findings, func(f doctor.Finding) bool {
		return f.Check == "winsock" && f.Level == doctor.OK && strings.Contains(f.Subject, "knows redirect records")
	})
	if !known {
		t.Errorf("the stand-in is not found: %+v", findings)
	}
}
