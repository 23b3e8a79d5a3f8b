//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// faultKind is a way to break something.
type faultKind string

const (
	killProxy   faultKind = "kill-proxy"   // kill -9; the daemon starts it again
	stopProxy   faultKind = "stop-proxy"   // SIGSTOP, and SIGCONT later
	killDaemon  faultKind = "kill-daemon"  // kill -9; a new one is started later
	reload      faultKind = "reload"       // another policy, by file and SIGHUP
	fillFlight  faultKind = "fill-flight"  // connections parked in the in-flight map
	starveFiles faultKind = "starve-files" // a proxy may open no more descriptors
	starveProxy faultKind = "starve-proxy" // a proxy may have no more memory
	starveState faultKind = "starve-state" // nor may the daemon and what its maps allocate
)

// kinds has them all, with the range of how long they last.
var kinds = []struct {
	kind        faultKind
	least, most time.Duration
	ofProxy     bool
}{
	{killProxy, 0, 0, true},
	{stopProxy, 5 * time.Second, 5 * time.Second, true},
	{killDaemon, 200 * time.Millisecond, 2 * time.Second, false},
	{reload, 0, 0, false},
	{fillFlight, time.Second, 2 * time.Second, false},
	{starveFiles, time.Second, 3 * time.Second, true},
	{starveProxy, time.Second, 3 * time.Second, true},
	{starveState, time.Second, 2 * time.Second, false},
}

// fault is something that will be broken.
type fault struct {
	Kind   faultKind     `json:"kind"`
	Target string        `json:"target,omitempty"` // provider
	At     time.Duration `json:"at"`               // from the start, at the earliest
	For    time.Duration `json:"for"`
	Amount int           `json:"amount"` // a random number, for what the kind makes of it
}

// The chain, heaviest first.
var chain = []string{"first", unaware, "last"}

const unaware = "middle" // has not heard of waybill

const (
	minDuration = 5 * time.Second
	minGap      = slack + 100*time.Millisecond // between two faults: a failure is of one of them
	maxGap      = 6 * time.Second
	calm        = time.Second // at the start
)

// planFaults draws the faults of a run. All kinds come once before one comes
// again, and so do the proxies.
func planFaults(seed uint64, duration time.Duration, only string) ([]fault, error) {
	wanted, err := parseKinds(only)
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(seed, 0))
	gap := min(maxGap, max(minGap, duration/60))
	deck := deck{r: r, of: wanted}
	var plan []fault
	for at := calm; len(wanted) > 0; {
		f := deck.next()
		f.At = at
		if at += f.For; at > duration {
			break
		}
		plan = append(plan, f)
		at += gap + time.Duration(r.Int64N(int64(gap)))
	}
	return plan, nil
}

// deck is cards that are shuffled again when all have been dealt.
type deck struct {
	r     *rand.Rand
	of    []faultKind
	cards []faultKind
	names []string
}

func (d *deck) next() fault {
	if len(d.cards) == 0 {
		d.cards = slices.Clone(d.of)
		d.r.Shuffle(len(d.cards), func(i, j int) { d.cards[i], d.cards[j] = d.cards[j], d.cards[i] })
	}
	f := fault{Kind: d.cards[0], Amount: d.r.IntN(1 << 20)}
	d.cards = d.cards[1:]
	for _, k := range kinds {
		if k.kind != f.Kind {
			continue
		}
		f.For = k.least + time.Duration(d.r.Int64N(int64(k.most-k.least)+1))
		if k.ofProxy {
			f.Target = d.name()
		}
	}
	return f
}

func (d *deck) name() string {
	if len(d.names) == 0 {
		d.names = slices.Clone(chain)
		d.r.Shuffle(len(d.names), func(i, j int) { d.names[i], d.names[j] = d.names[j], d.names[i] })
	}
	name := d.names[0]
	d.names = d.names[1:]
	return name
}

func parseKinds(text string) ([]faultKind, error) {
	var all, wanted []faultKind
	for _, k := range kinds {
		all = append(all, k.kind)
	}
	switch text {
	case "all":
		return all, nil
	case "none":
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		if !slices.Contains(all, faultKind(word)) {
			return nil, fmt.Errorf("read faults: %q is not one of %v", word, all)
		}
		wanted = append(wanted, faultKind(word))
	}
	return wanted, nil
}

func printPlan(w io.Writer, plan []fault) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AT\tFAULT\tTARGET\tFOR")
	for _, f := range plan {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", seconds(f.At), f.Kind, f.Target, seconds(f.For))
	}
	table.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
