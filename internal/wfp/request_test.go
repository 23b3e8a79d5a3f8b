package wfp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// scripted is a Socket that gives one answer after the other.
type scripted struct {
	t       *testing.T
	answers []answer
	sizes   []int // of the buffers it was given
	in      []byte
}

// answer is what one call does. It fills the buffer with what.
type answer struct {
	what    []byte
	n       int
	err     error
	pending *fakePending
}

func (s *scripted) Begin(_ Code, in, out []byte) (int, Pending, error) {
	s.sizes, s.in = append(s.sizes, len(out)), in
	for _, b := range [][]byte{in, out} {
		if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%8 != 0 {
			s.t.Errorf("a buffer of %d bytes is not aligned", len(b))
		}
	}
	if len(s.answers) == 0 {
		s.t.Fatal("one call too many")
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	copy(out, a.what)
	if a.pending != nil {
		return 0, a.pending, ErrIOPending
	}
	return a.n, nil, a.err
}

// fakePending is over when done is closed.
type fakePending struct {
	done      chan struct{}
	n         int
	err       error
	deaf      bool // to Cancel
	cancelled bool
	released  bool
}

func (p *fakePending) Wait(ctx context.Context) bool {
	select {
	case <-p.done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *fakePending) Cancel() {
	p.cancelled = true
	if !p.deaf {
		p.err = ErrOperationAborted
		close(p.done)
	}
}

func (p *fakePending) Result() (int, error) {
	select {
	case <-p.done:
		return p.n, p.err
	default:
		return 0, ErrIOIncomplete
	}
}

func (p *fakePending) Release() { p.released = true }

// TestGrow: each way to say that the buffer is too short, and its end.
func TestGrow(t *testing.T) {
	records := bytes.Repeat([]byte("r"), 20000)
	ok := answer{what: records, n: len(records)}
	for _, tt := range []struct {
		name    string
		answers []answer
		sizes   []int
		err     error
	}{
		{"at once", []answer{ok}, []int{8192}, nil},
		{"122 with the size", []answer{{n: 20000, err: ErrInsufficientBuffer}, ok}, []int{8192, 20000}, nil},
		{"122 without", []answer{{err: ErrInsufficientBuffer}, {err: ErrInsufficientBuffer}, ok}, []int{8192, 16384, 32768}, nil},
		{"10014 with the size", []answer{{n: 20000, err: EFAULT}, ok}, []int{8192, 20000}, nil},
		{"10014 with a part", []answer{{n: 8192, err: EFAULT}, {n: 16384, err: EFAULT}, ok}, []int{8192, 16384, 32768}, nil},
		{"10055", []answer{{err: ENOBUFS}, ok}, []int{8192, 16384}, nil},
		{"234", []answer{{n: 20000, err: ErrMoreData}, ok}, []int{8192, 20000}, nil},
		{"10022 with a size", []answer{{n: 20000, err: EINVAL}, ok}, []int{8192, 20000}, nil},
		{"10022 without", []answer{{err: EINVAL}}, []int{8192}, EINVAL},
		{"a real bad pointer", []answer{{err: EFAULT}, {err: EFAULT}, {err: EFAULT}, {err: EFAULT}}, []int{8192, 16384, 32768, 65536}, EFAULT},
		{"more than we take", []answer{{n: 65537, err: ErrInsufficientBuffer}}, []int{8192}, ErrInsufficientBuffer},
		{"another error", []answer{{n: 20000, err: ENOTCONN}}, []int{8192}, ENOTCONN},
		{"pending", []answer{{pending: over(20000, ErrInsufficientBuffer)}, {what: records, pending: over(20000, nil)}}, []int{8192, 20000}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &scripted{t: t, answers: tt.answers}
			got, err := Query(t.Context(), s, QueryRecords)
			if !errors.Is(err, tt.err) || !slices.Equal(s.sizes, tt.sizes) || len(s.answers) > 0 {
				t.Errorf("%v, sizes %d, %d answers left; want %v, %d", err, s.sizes, len(s.answers), tt.err, tt.sizes)
			}
			if want := records[:min(len(records), s.sizes[len(s.sizes)-1])]; err == nil && !bytes.Equal(got, want) {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
		})
	}
}

func over(n int, err error) *fakePending {
	p := &fakePending{done: make(chan struct{}), n: n, err: err}
	close(p.done)
	return p
}

// TestPending: a request that is pending ends when it is over, when its context
// is, or when it has been pending for too long.
func TestPending(t *testing.T) {
	for _, tt := range []struct {
		name    string
		deaf    bool
		over    time.Duration // 0: never
		cancel  time.Duration // 0: never
		want    []error
		took    time.Duration
		aborted bool
	}{
		{"over", false, time.Second, 0, nil, time.Second, false},
		{"cancelled", false, 0, time.Second, []error{context.Canceled, ErrOperationAborted}, time.Second, true},
		{"never over", false, 0, 0, []error{os.ErrDeadlineExceeded, ErrOperationAborted}, patience, true},
		{"never over, deaf", true, 0, 0, []error{os.ErrDeadlineExceeded, ErrIOIncomplete}, patience + grace, true},
		{"over while cancelled", true, time.Second + time.Millisecond, time.Second, nil, time.Second + time.Millisecond, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &fakePending{done: make(chan struct{}), n: 7, deaf: tt.deaf}
				s := &scripted{t: t, answers: []answer{{what: []byte("records"), pending: p}}}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.over > 0 {
					time.AfterFunc(tt.over, func() { close(p.done) })
				}
				if tt.cancel > 0 {
					time.AfterFunc(tt.cancel, cancel)
				}
				begin := time.Now()
				got, err := Query(ctx, s, QueryRecords)
				for _, want := range tt.want {
					if !errors.Is(err, want) {
						t.Errorf("error %v, want %v", err, want)
					}
				}
				if (tt.want == nil) != (err == nil) || err == nil && string(got) != "records" {
					t.Errorf("%q, %v", got, err)
				}
				if took := time.Since(begin); took != tt.took || p.cancelled != tt.aborted || !p.released {
					t.Errorf("took %v, cancelled %t, released %t; want %v, %t, true", took, p.cancelled, p.released, tt.took, tt.aborted)
				}
			})
		})
	}
}

// TestOverAtOnce: there are systems that say WSA_IO_PENDING, have the result,
// and set no event.
func TestOverAtOnce(t *testing.T) {
	p := over(0, EOPNOTSUPP)
	p.deaf = true
	s := &scripted{t: t, answers: []answer{{pending: p}}}
	if _, err := Query(t.Context(), s, QueryContext); !errors.Is(err, EOPNOTSUPP) || p.cancelled || !p.released {
		t.Errorf("%v, cancelled %t, released %t", err, p.cancelled, p.released)
	}
}

// TestClosed: who closes the socket of a pending request aborts it.
func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakePending{done: make(chan struct{}), err: ErrOperationAborted}
		time.AfterFunc(time.Second, func() { close(p.done) })
		s := &scripted{t: t, answers: []answer{{pending: p}}}
		_, err := Query(t.Context(), s, QueryRecords)
		if !errors.Is(err, net.ErrClosed) || !errors.Is(err, ErrOperationAborted) || p.cancelled {
			t.Errorf("%v, cancelled %t", err, p.cancelled)
		}
	})
}

func TestDoneContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Query(ctx, &scripted{t: t}, QueryRecords); !errors.Is(err, context.Canceled) {
		t.Errorf("query: %v", err)
	}
}

func TestSet(t *testing.T) {
	s := &scripted{t: t, answers: []answer{{n: 99}}} // whatever it says, it is a success
	if err := Set(t.Context(), s, []byte("records")); err != nil || string(s.in) != "records" || s.sizes[0] != 0 {
		t.Errorf("%v, in %q, out %d", err, s.in, s.sizes)
	}
	if err := Set(t.Context(), &scripted{t: t}, nil); !errors.Is(err, EINVAL) {
		t.Errorf("empty: %v", err)
	}
	s = &scripted{t: t, answers: []answer{{n: 99, err: EFAULT}}}
	if err := Set(t.Context(), s, []byte("r")); !errors.Is(err, EFAULT) || len(s.sizes) != 1 {
		t.Errorf("a bad pointer: %v after %d calls", err, len(s.sizes))
	}
}

func TestEndpointHandle(t *testing.T) {
	s := &scripted{t: t, answers: []answer{{what: []byte{1, 2, 0, 0, 0, 0, 0, 0}, n: 8}}}
	if h, err := EndpointHandle(t.Context(), s); h != 0x201 || err != nil {
		t.Errorf("%#x, %v", h, err)
	}
	s = &scripted{t: t, answers: []answer{{n: 4}}}
	if h, err := EndpointHandle(t.Context(), s); h != 0 || !errors.Is(err, EINVAL) {
		t.Errorf("half a handle: %#x, %v", h, err)
	}
}

func storage(b ...byte) []byte { return append(b, make([]byte, SizeofStorage-len(b))...) }

func TestContextDestination(t *testing.T) {
	v4 := storage(2, 0, 0, 80, 192, 0, 2, 1)
	mapped := storage(23, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1)
	v6 := storage(23, 0, 1, 187, 0, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4)
	for _, tt := range []struct {
		name    string
		context []byte
		want    string // empty: none
	}{
		{"IPv4, and the local address", append(slices.Clone(v4), v6...), "192.0.2.1:80"},
		{"IPv4", v4, "192.0.2.1:80"},
		{"IPv4-mapped", mapped, "192.0.2.1:80"},
		{"IPv6 with a scope", v6, "[fe80::1%4]:443"},
		{"no port", storage(2, 0, 0, 0, 192, 0, 2, 1), ""},
		{"no address", storage(2, 0, 0, 80), ""},
		{"another family", storage(10, 0, 0, 80, 192, 0, 2, 1), ""},
		{"another length", v4[:100], ""},
		{"text", []byte("tenant=42"), ""},
		{"nothing", nil, ""},
	} {
		got, ok := ContextDestination(tt.context)
		want, _ := netip.ParseAddrPort(tt.want)
		if ok != want.IsValid() || ok && got != want {
			t.Errorf("%s: %v, %t; want %s", tt.name, got, ok, tt.want)
		}
	}
}

func FuzzSockaddr(f *testing.F) {
	f.Add(storage(2, 0, 0, 80, 192, 0, 2, 1))
	f.Add(storage(23, 0, 0, 80)[:28])
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := Sockaddr(b); ok != a.IsValid() {
			t.Errorf("Sockaddr(%x) = %v, %t", b, a, ok)
		}
		ContextDestination(b)
	})
}

// TestNumbers compares some with those that are known by name.
func TestNumbers(t *testing.T) {
	vendorIn := func(n int) Code { return Code(0x80000000 | 0x18000000 | n) } // _WSAIOW(IOC_VENDOR, n)
	for got, want := range map[Code]Code{
		QueryRecords: vendorIn(220), QueryContext: vendorIn(221), SetRecords: vendorIn(222),
		QueryEndpointHandle: 0x40000000 | 0x18000000 | 205, // _WSAIOR
	} {
		if got != want {
			t.Errorf("%#x, want %#x", got, want)
		}
	}
	if e := error(EACCES); !errors.As(e, new(syscall.Errno)) {
		t.Error("EACCES is no syscall.Errno")
	}
}
