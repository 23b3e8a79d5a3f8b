package policyfile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
)

// TestMany: the largest policy is read and checked in seconds, also when no
// two of its filters can be told apart at a glance.
func TestMany(t *testing.T) {
	for _, tt := range []struct {
		name   string
		filter func(i int) string
	}{
		{"destinations", func(i int) string { return fmt.Sprintf("{destination: 10.0.%d.%d}", i/256, i%256) }},
		{"programs and ports", func(i int) string { return fmt.Sprintf("{program: [/opt/%d, /opt/%d], port: %d}", i%100, i%101, 1+i) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString(header + "filters:\n")
			for i := range policy.MaxFilters {
				fmt.Fprintf(&b, "  - {name: f%d, provider: dlp, match: %s}\n", i, tt.filter(i))
			}
			start := time.Now()
			p, warnings := parse(t, b.String())
			took := time.Since(start)
			if len(p.Filters) != policy.MaxFilters || warnings != "" {
				t.Errorf("%d filters, warnings %s", len(p.Filters), warnings)
			}
			if took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			t.Log(took)
		})
	}
}

func TestTooMany(t *testing.T) {
	providers, filters := "version: 1\nproviders:\n", header+"filters:\n"
	for i := range policy.MaxProviders + 1 {
		providers += fmt.Sprintf("  - {name: p%d, weight: %d, proxy: {listen: \"127.0.0.1:%d\"}, processes: {unit: %d.service}}\n", i, i, 7000+i, i)
	}
	for i := range policy.MaxFilters + 1 {
		filters += fmt.Sprintf("  - {name: f%d, provider: dlp}\n", i)
	}
	for _, tt := range []struct{ data, want string }{
		{providers, "policy.yaml:67:5: 65 providers, at most 64\n"},
		{filters, "policy.yaml:10247:5: 10241 filters, at most 10240\n"},
		{header + strings.Repeat("#", 16<<20), "policy.yaml:1:1: file of 16777348 bytes, at most 16777216\n"},
	} {
		_, err := policyfile.Parse("policy.yaml", []byte(tt.data), policyfile.Options{})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("error %.200v, want %q", err, tt.want)
		}
	}
}
