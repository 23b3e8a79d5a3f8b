package doctor

import (
	"slices"
	"structs"
	"unsafe"

	"golang.org/x/sys/windows"
)

// The management API of the filter engine. (github.com/tailscale/wf lists
// filters and providers, but no callouts, and they are what redirects.)
var (
	fwpuclnt        = windows.NewLazySystemDLL("fwpuclnt.dll")
	procEngineOpen  = fwpuclnt.NewProc("FwpmEngineOpen0")
	procEngineClose = fwpuclnt.NewProc("FwpmEngineClose0")
	procFreeMemory  = fwpuclnt.NewProc("FwpmFreeMemory0")
)

// redirectLayers are those where a connect() or a first datagram can be given
// another destination.
var redirectLayers = map[windows.GUID]string{
	guid("{c6e63c8c-b784-4562-aa7d-0a67cfcaf9a3}"): "ALE_CONNECT_REDIRECT_V4",
	guid("{587e54a7-8046-42ba-a0aa-b716250fc7fd}"): "ALE_CONNECT_REDIRECT_V6",
}

func guid(s string) windows.GUID {
	g, err := windows.GUIDFromString(s)
	if err != nil {
		panic(err)
	}
	return g
}

// The beginnings of FWPM_CALLOUT0, FWPM_FILTER0 and FWPM_PROVIDER0, on 64 bits.
type (
	displayData struct {
		_                 structs.HostLayout
		name, description *uint16
	}

	blob struct {
		_    structs.HostLayout
		size uint32
		data *byte
	}

	// callout is FWPM_CALLOUT0, and how FWPM_FILTER0 begins.
	callout struct {
		_        structs.HostLayout
		key      windows.GUID
		display  displayData
		flags    uint32
		provider *windows.GUID
		data     blob
		layer    windows.GUID
	}

	filter struct {
		_             structs.HostLayout
		begin         callout
		subLayer      windows.GUID
		weight        [2]uint64
		conditions    uint32
		condition     *byte
		action        uint32
		actionCallout windows.GUID
	}

	provider struct {
		_       structs.HostLayout
		key     windows.GUID
		display displayData
	}
)

const (
	calloutRegistered = 0x00040000 // FWPM_CALLOUT_FLAG_REGISTERED
	actionIsCallout   = 0x4000     // FWP_ACTION_FLAG_CALLOUT
	authnWinNT        = 10         // RPC_C_AUTHN_WINNT
)

// filterEngine is a session with it.
type filterEngine struct{ handle windows.Handle }

func openEngine() (*filterEngine, error) {
	for _, p := range []*windows.LazyProc{procEngineOpen, procEngineClose, procFreeMemory} {
		if err := p.Find(); err != nil {
			return nil, err
		}
	}
	e := new(filterEngine)
	return e, status(procEngineOpen.Call(0, authnWinNT, 0, 0, uintptr(unsafe.Pointer(&e.handle))))
}

func (e *filterEngine) close() { procEngineClose.Call(uintptr(e.handle)) }

func status(r, _ uintptr, _ error) error {
	if r == 0 {
		return nil
	}
	return windows.Errno(r)
}

// each calls f with every object of one kind.
func each[T any](e *filterEngine, kind string, f func(*T)) error {
	create, next, destroy := fwpuclnt.NewProc("Fwpm"+kind+"CreateEnumHandle0"), fwpuclnt.NewProc("Fwpm"+kind+"Enum0"), fwpuclnt.NewProc("Fwpm"+kind+"DestroyEnumHandle0")
	for _, p := range []*windows.LazyProc{create, next, destroy} {
		if err := p.Find(); err != nil {
			return err
		}
	}
	var enum windows.Handle
	if err := status(create.Call(uintptr(e.handle), 0, uintptr(unsafe.Pointer(&enum)))); err != nil {
		return err
	}
	defer destroy.Call(uintptr(e.handle), uintptr(enum))
	for {
		const page = 256
		var objects **T
		var n uint32
		err := status(next.Call(uintptr(e.handle), uintptr(enum), page, uintptr(unsafe.Pointer(&objects)), uintptr(unsafe.Pointer(&n))))
		if err != nil {
			return err
		}
		for _, o := range unsafe.Slice(objects, n) {
			f(o)
		}
		if objects != nil {
			procFreeMemory.Call(uintptr(unsafe.Pointer(&objects)))
		}
		if n < page {
			return nil
		}
	}
}

// redirector is the callouts of one name where connections are redirected.
type redirector struct {
	name, provider string
	layers         []string
	registered     bool // its driver is there
	filters        int  // that lead to it
}

func (e *filterEngine) redirectors() ([]redirector, error) {
	providers := make(map[windows.GUID]string)
	err := each(e, "Provider", func(p *provider) { providers[p.key] = windows.UTF16PtrToString(p.display.name) })
	if err != nil {
		return nil, err
	}
	filters := make(map[windows.GUID]int)
	err = each(e, "Filter", func(f *filter) {
		if f.action&actionIsCallout != 0 {
			filters[f.actionCallout]++
		}
	})
	if err != nil {
		return nil, err
	}
	var all []redirector
	err = each(e, "Callout", func(c *callout) {
		layer, ok := redirectLayers[c.layer]
		if !ok {
			return
		}
		r := redirector{
			name: windows.UTF16PtrToString(c.display.name), layers: []string{layer},
			registered: c.flags&calloutRegistered != 0, filters: filters[c.key],
		}
		if c.provider != nil {
			r.provider = providers[*c.provider]
		}
		all = merge(all, r)
	})
	return all, err
}

// merge adds a callout to those of the same name in another layer.
func merge(all []redirector, r redirector) []redirector {
	same := func(o redirector) bool {
		return o.name == r.name && o.provider == r.provider && o.registered == r.registered
	}
	i := slices.IndexFunc(all, same)
	if i < 0 {
		return append(all, r)
	}
	all[i].layers = append(all[i].layers, r.layers...)
	all[i].filters += r.filters
	return all
}
