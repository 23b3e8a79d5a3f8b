//go:build linux

package engine

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unicode/utf8"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
)

// encodeForFuzz is what the kernel programs would write.
func encodeForFuzz(f *testing.F, values ...any) []byte {
	f.Helper()
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.NativeEndian, v); err != nil {
			f.Fatal(err)
		}
	}
	return b.Bytes()
}

// FuzzDecode: whatever stands in the ring or comes from the iterator, also of
// another version, is decoded or left out. What is decoded can be shown and
// stored.
func FuzzDecode(f *testing.F) {
	e := &Engine{}
	table, err := policy.Compile(policy.Policy{}, policy.Identities{})
	if err != nil {
		f.Fatal(err)
	}
	e.names.add(1, table)
	outcome := kernelWbOutcome{Generation: 1, Verdict: 1, N_args: 12, Excluded: 5, Bypassed: 1 << 63}
	outcome.Event.Kind = uint32(kernelWbEventKindWB_EVENT_OUTCOME)
	copy(outcome.Args[:], "curl\x00-s\x00\xff\x1b[2J")
	end := kernelWbEnd{Since: 1, Error: 104}
	end.Event.Kind = uint32(kernelWbEventKindWB_EVENT_CLOSED)
	socket := kernelWbSocket{Role: 1}
	socket.Records.N_hops = 9
	f.Add(encodeForFuzz(f, outcome))
	f.Add(encodeForFuzz(f, end))
	f.Add(encodeForFuzz(f, kernelWbEvent{Kind: uint32(kernelWbEventKindWB_EVENT_ACCEPTED)}))
	f.Add(encodeForFuzz(f, kernelWbFlow{TcpState: 255}, socket))
	f.Fuzz(func(t *testing.T, raw []byte) {
		events := Events{e: e}
		if event, ok := events.decode(raw); ok {
			checkDecoded(t, &event)
		}
		var (
			head kernelWbFlow
			s    kernelWbSocket
			in   = bytes.NewReader(raw)
		)
		if binary.Read(in, binary.NativeEndian, &head) != nil || binary.Read(in, binary.NativeEndian, &s) != nil {
			return
		}
		live := e.decodeFlow(&head, &s)
		if len(live.Hops) > len(s.Records.Hops) || live.Role == "" {
			t.Errorf("%+v", live)
		}
	})
}

func checkDecoded(t *testing.T, event *flow.Event) {
	t.Helper()
	switch event.Kind {
	case flow.Passed, flow.Redirected, flow.Refused, flow.Looped, flow.Forbidden, flow.QUICDropped, flow.Accepted, flow.Closed, flow.Linked:
	default:
		t.Errorf("kind %v", event.Kind)
	}
	for _, arg := range event.Process.Args {
		if !utf8.ValidString(arg) {
			t.Errorf("argument %q is no text", arg)
		}
	}
	for _, skip := range event.Skipped {
		if skip.Provider == "" || skip.Reason == "" {
			t.Errorf("skipped %+v", skip)
		}
	}
	var f flow.Flow
	f.Apply(*event)
	if err := f.Draw(new(bytes.Buffer), flow.DrawOptions{}); err != nil {
		t.Error(err)
	}
}
