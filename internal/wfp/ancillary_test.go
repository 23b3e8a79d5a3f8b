package wfp

import (
	"bytes"
	"slices"
	"testing"
)

func TestAncillary(t *testing.T) {
	control := AncillaryRecords([]byte("records"), true)
	if len(control) != 24 || !bytes.Equal(control[:16], []byte{23, 0, 0, 0, 0, 0, 0, 0, 41, 0, 0, 0, 60, 0, 0, 0}) {
		t.Errorf("%x", control)
	}
	context := AncillaryRecords([]byte("tenant=42"), false)
	context[12] = RedirectContext
	records, got := Ancillary(slices.Concat(control, context))
	if string(records) != "records" || string(got) != "tenant=42" {
		t.Errorf("records %q, context %q", records, got)
	}
	other := slices.Clone(control)
	other[12] = 19 // IP_PKTINFO
	if records, _ := Ancillary(slices.Concat(other, control)); string(records) != "records" {
		t.Errorf("behind another one: %q", records)
	}
	if records, context := Ancillary(other); records != nil || context != nil {
		t.Errorf("another one: %q, %q", records, context)
	}
}

func FuzzAncillary(f *testing.F) {
	f.Add(AncillaryRecords([]byte("records"), false))
	f.Add([]byte{16, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 60, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		records, context := Ancillary(b)
		if len(records)+len(context) > len(b) {
			t.Errorf("%d and %d bytes of %d", len(records), len(context), len(b))
		}
	})
}
