package waybill

import (
	"bytes"
	"encoding/binary"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestHeader compares this package's numbers with those of include/waybill.h.
func TestHeader(t *testing.T) {
	header, err := os.ReadFile("include/waybill.h")
	if err != nil {
		t.Fatal(err)
	}
	defined := make(map[string]int64)
	for _, m := range regexp.MustCompile(`(?m)^#define (\w+) (0x[0-9a-f]+|\d+)`).FindAllSubmatch(header, -1) {
		n, err := strconv.ParseInt(string(m[2]), 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		defined[string(m[1])] = n
	}
	for _, m := range regexp.MustCompile(`(?m)^\t(WAYBILL_\w+) = (\d+),`).FindAllSubmatch(header, -1) {
		n, _ := strconv.ParseInt(string(m[2]), 10, 32)
		defined[string(m[1])] = n
	}
	for name, n := range map[string]int64{
		"SOL_WAYBILL":                           solWaybill,
		"WAYBILL_REDIRECT_RECORDS":              optRecords,
		"WAYBILL_REDIRECT_CONTEXT":              optContext,
		"WAYBILL_ORIGINAL_DST":                  optOriginalDst,
		"WAYBILL_ORIGIN":                        optOrigin,
		"WAYBILL_REDIRECT_STATE":                optState,
		"WAYBILL_RECORDS_MAX":                   recordsMax,
		"WAYBILL_CONTEXT_MAX":                   contextMax,
		"WAYBILL_NOT_REDIRECTED":                int64(NotRedirected),
		"WAYBILL_REDIRECTED_BY_SELF":            int64(RedirectedBySelf),
		"WAYBILL_REDIRECTED_BY_OTHER":           int64(RedirectedByOther),
		"WAYBILL_PREVIOUSLY_REDIRECTED_BY_SELF": int64(PreviouslyRedirectedBySelf),
	} {
		if got, ok := defined[name]; !ok || got != n {
			t.Errorf("%s is %d in the header, %d here", name, got, n)
		}
		delete(defined, name)
	}
	if len(defined) > 0 {
		t.Errorf("in the header alone: %v", defined)
	}
}

// TestOriginLayout puts values where the kernel programs' type information
// says the fields are, and decodes them.
func TestOriginLayout(t *testing.T) {
	spec, err := btf.LoadSpec("internal/engine/kernel_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	var s *btf.Struct
	if err := spec.TypeByName("waybill_origin", &s); err != nil {
		t.Fatal(err)
	}
	if s.Size != originSize {
		t.Errorf("struct waybill_origin has %d bytes, want %d", s.Size, originSize)
	}
	raw := make([]byte, s.Size)
	for i, m := range s.Members {
		at := raw[m.Offset.Bytes():]
		switch size, _ := btf.Sizeof(m.Type); size {
		case 4:
			binary.NativeEndian.PutUint32(at, uint32(i+1))
		case 8:
			binary.NativeEndian.PutUint64(at, uint64(i+1)<<32)
		case 16:
			copy(at, "a name of 15 byt")
			at[15] = 0
		default:
			t.Errorf("member %s has %d bytes", m.Name, size)
		}
	}
	got, err := decodeOrigin(raw)
	want := Origin{
		PID: 1, TGID: 2, UID: 3, GID: 4,
		CgroupID: 5 << 32, NetNSCookie: 6 << 32, Start: 7 << 32, FlowID: 8 << 32,
		Comm: "a name of 15 by", ProgramInode: 10 << 32, ProgramDevice: 11,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if _, err := decodeOrigin(raw[:originSize1-1]); err == nil {
		t.Error("a short answer is taken")
	}
}

// FuzzDecode: an answer of any shape is an error, not a crash.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{2, 0, 0, 80, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{10, 0, 0, 80}, bytes.Repeat([]byte{1}, 24)...))
	f.Add(make([]byte, originSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := decodeSockaddr(b); err == nil && !a.IsValid() {
			t.Errorf("decodeSockaddr(%x) = %v", b, a)
		}
		decodeOrigin(b)
		decodeState(b)
	})
}
