//go:build linux

package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/policy"
)

// Events reads what happens to connections. The kernel keeps what nobody has
// read yet in a ring of 4 MiB; what finds no room there is counted as
// events_lost. There can be one reader.
type Events struct {
	e      *Engine
	ring   *ringbuf.Reader
	record ringbuf.Record
	boot   time.Time
}

// Events opens the ring.
func (e *Engine) Events() (*Events, error) {
	ring, err := ringbuf.NewReader(e.objects.Events)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return &Events{e: e, ring: ring, boot: bootTime()}, nil
}

// bootTime is when the clock of the kernel's events began.
func bootTime() time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return time.Time{} // not reached: every kernel has this clock
	}
	return time.Now().Add(-time.Duration(ts.Nano())).Round(0)
}

// Read waits for the next event. It fails with os.ErrClosed after Close, and
// with os.ErrDeadlineExceeded at the deadline.
func (r *Events) Read() (flow.Event, error) {
	for {
		if err := r.ring.ReadInto(&r.record); err != nil {
			if errors.Is(err, ringbuf.ErrClosed) {
				err = os.ErrClosed
			}
			return flow.Event{}, err
		}
		if event, ok := r.decode(r.record.RawSample); ok {
			return event, nil
		}
	}
}

// SetDeadline bounds each Read that begins after it. It waits for one that is
// under way.
func (r *Events) SetDeadline(t time.Time) { r.ring.SetDeadline(t) }

// Close ends a Read that waits.
func (r *Events) Close() error { return r.ring.Close() }

// decode reports false for what it does not know, such as an event that the
// programs of a later version left in an adopted ring.
func (r *Events) decode(raw []byte) (flow.Event, bool) {
	var head kernelWbEvent
	if !read(raw, &head) {
		return flow.Event{}, false
	}
	event := flow.Event{
		Time: r.boot.Add(time.Duration(head.Time)),
		Flow: flow.ID(head.FlowId),
		Hop:  int(head.Hop),
	}
	if head.Provider != 0 {
		event.Provider = r.e.names.provider(head.Provider)
	}
	switch kernelWbEventKind(head.Kind) {
	case kernelWbEventKindWB_EVENT_OUTCOME:
		var o kernelWbOutcome
		return event, read(raw, &o) && r.decodeOutcome(&event, &o)
	case kernelWbEventKindWB_EVENT_ACCEPTED:
		event.Kind = flow.Accepted
		return event, true
	case kernelWbEventKindWB_EVENT_CLOSED:
		var end kernelWbEnd
		event.Kind = flow.Closed
		return event, read(raw, &end) && decodeEnd(&event, &end)
	case kernelWbEventKindWB_EVENT_LINKED:
		var links kernelWbLinks
		event.Kind = flow.Linked
		return event, read(raw, &links) && decodeLinks(&event, &links)
	}
	return event, false
}

func read(raw []byte, into any) bool {
	return binary.Read(bytes.NewReader(raw), binary.NativeEndian, into) == nil
}

func decodeEnd(event *flow.Event, end *kernelWbEnd) bool {
	event.Sent, event.Received = end.Sent, end.Received
	if end.Since != 0 {
		event.Duration = time.Duration(end.Event.Time - end.Since)
	}
	if end.Error != 0 {
		event.Error = syscall.Errno(end.Error).Error()
	}
	return true
}

func decodeLinks(event *flow.Event, links *kernelWbLinks) bool {
	event.Candidates = int(links.N_candidates)
	for _, id := range links.Flows[:min(int(links.N_flows), len(links.Flows))] {
		event.Links = append(event.Links, flow.ID(id))
	}
	return true
}

// kinships leaves out none, and what a later version may know.
var kinships = map[kernelWbKinship]flow.Kinship{
	kernelWbKinshipWB_KIN_IMPLIED:   flow.Implied,
	kernelWbKinshipWB_KIN_INHERITED: flow.Inherited,
	kernelWbKinshipWB_KIN_AMBIGUOUS: flow.Ambiguous,
}

var outcomeKinds = map[kernelWbVerdict]flow.Kind{
	kernelWbVerdictWB_PASS:      flow.Passed,
	kernelWbVerdictWB_REDIRECT:  flow.Redirected,
	kernelWbVerdictWB_REFUSE:    flow.Refused,
	kernelWbVerdictWB_LOOP:      flow.Looped,
	kernelWbVerdictWB_FORBID:    flow.Forbidden,
	kernelWbVerdictWB_DROP_QUIC: flow.QUICDropped,
}

func (r *Events) decodeOutcome(event *flow.Event, o *kernelWbOutcome) bool {
	var known bool
	if event.Kind, known = outcomeKinds[kernelWbVerdict(o.Verdict)]; !known {
		return false
	}
	event.Dst = decodeEndpoint(o.Dst)
	if o.Dst.Protocol == unix.IPPROTO_UDP {
		event.Protocol = flow.UDP
	}
	event.Kinship = kinships[kernelWbKinship(o.Kinship)]
	event.Process = decodeProcess(o)
	if event.Kind != flow.Passed {
		event.State = policy.State(o.State).String()
		event.Filter = r.e.names.filterAt(o.Generation, int(o.Filter))
	}
	for _, skip := range []struct {
		mask   uint64
		reason flow.SkipReason
	}{{o.Excluded, flow.SkipState}, {o.Bypassed, flow.SkipDown}, {o.Shadowed, flow.SkipShadow}} {
		for i := range policy.MaxProviders {
			if skip.mask&(1<<i) != 0 {
				event.Skipped = append(event.Skipped, flow.Skip{Provider: r.e.names.providerAt(o.Generation, i), Reason: skip.reason})
			}
		}
	}
	return true
}

func decodeProcess(o *kernelWbOutcome) flow.Process {
	p := o.Process
	return flow.Process{
		PID: p.Tgid, UID: p.Uid, GID: p.Gid,
		CgroupID: p.CgroupId, NetNS: p.NetnsCookie,
		Start:  time.Duration(p.StartTime),
		Comm:   commString(p.Comm),
		Device: uint64(o.Device), Inode: o.Inode,
		Args: splitArgs(o.Args[:min(int(o.N_args), len(o.Args))]),
	}
}

// splitArgs cuts a command line as the kernel has it: each argument ends with
// a NUL, but for the last one if there was no room.
func splitArgs(raw []byte) []string {
	line := strings.TrimSuffix(string(raw), "\x00")
	if line == "" {
		return nil
	}
	return strings.Split(strings.ToValidUTF8(line, "\uFFFD"), "\x00")
}
