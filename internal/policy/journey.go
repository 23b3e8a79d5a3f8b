package policy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
)

// journey is an [Explanation] under way.
type journey struct {
	Explanation
	table   *Table
	trial   Trial
	query   Query
	process party // that connects
	origin  party
	ended   bool
}

// party is who a [Process] of the query is.
type party struct {
	Subject
	proxyOf string
}

// noUser is the number that no process has: INVALID_UID.
const noUser = math.MaxUint32

func (t *Table) begin(trial Trial) (*journey, error) {
	dst := normal(netip.AddrPortFrom(trial.Dst.Addr().WithZone(""), trial.Dst.Port()))
	if !dst.IsValid() {
		return nil, errors.New("explain connection: no destination")
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(trial.Proxies)), trial.Down, trial.Unaware) {
		if t.index(name) < 0 {
			return nil, fmt.Errorf("explain connection: no provider %q in this policy", name)
		}
	}
	j := &journey{Explanation: Explanation{Protocol: trial.Protocol.String(), Dst: dst, Names: trial.Names, Proxies: []string{}}, table: t, trial: trial}
	j.query.Protocol, j.query.Dst, j.query.Names = trial.Protocol, dst, trial.Names
	j.query.Down = t.down(trial, trial.Protocol, dst.Addr())
	j.enter(party{Subject: trial.Client})
	j.query.Self = slices.IndexFunc(t.Providers, func(p TableProvider) bool {
		return p.ID != CgroupID{} && j.query.Process.in([]CgroupID{p.ID})
	})
	return j, nil
}

// down has the providers that can not be given connections to addresses of
// the family of dst.
func (t *Table) down(trial Trial, protocol Protocol, dst netip.Addr) (mask uint64) {
	for i := range t.Providers {
		p := &t.Providers[i]
		if slices.Contains(trial.Down, p.Name) || !p.Address(protocol, dst).IsValid() {
			mask |= 1 << i
		}
	}
	return mask
}

func (t *Table) index(provider string) int {
	return slices.IndexFunc(t.Providers, func(p TableProvider) bool { return p.Name == provider })
}

// enter makes p the one that connects, and without records also the origin.
func (j *journey) enter(p party) {
	j.process = p
	j.query.Process = j.table.process(p.Subject)
	if len(j.query.Hops) == 0 {
		j.origin, j.query.Origin = p, j.query.Process
	}
}

func (t *Table) process(s Subject) Process {
	p := Process{Program: s.File, UID: s.UID, Cgroups: t.lineage(s.Cgroup)}
	if s.Program == "" {
		p.Program = FileID{}
	}
	if s.User == "" {
		p.UID = noUser
	}
	return p
}

// lineage returns those of the cgroups that the policy names that a process in
// dir is in.
func (t *Table) lineage(dir string) []uint64 {
	if dir == "" {
		return nil
	}
	var ids []uint64
	add := func(path string, id CgroupID) {
		if id != (CgroupID{}) && isOrBelow(dir, path) && !slices.Contains(ids, id.ID) {
			ids = append(ids, id.ID)
		}
	}
	for i := range t.Providers {
		add(t.Providers[i].Cgroup, t.Providers[i].ID)
	}
	for i := range t.Filters {
		for path, id := range t.Filters[i].named {
			add(path, id)
		}
	}
	return ids
}

// connect adds the step of one connect().
func (j *journey) connect() {
	step := Step{ProxyOf: j.process.proxyOf, Process: j.process.Subject, Hop: hopNumber(j.query.Hops)}
	if j.query.Self >= 0 {
		step.ProxyOf = j.table.Providers[j.query.Self].Name
	}
	d := j.authorize(&step)
	if d.Verdict == Pass && j.query.Protocol == UDP && j.table.DropsQUIC() {
		d = j.supposeTCP(&step)
	}
	if d.Verdict == Pass {
		d = j.inquire(&step, LayerRedirect, j.query, j.process)
		if i := j.table.proxyAt(j.query.Protocol, j.Dst); i >= 0 {
			step.DialsTo = j.table.Providers[i].Name
		}
	}
	j.Outcome, j.ended = d.Verdict.String(), true
	step.Outcome = j.Outcome
	if d.Verdict != Pass {
		p := &j.table.Providers[d.Provider]
		step.Provider, step.Filter, step.State = p.Name, j.table.Filters[d.Filter].Name, d.State.String()
		if d.Verdict == Redirect {
			step.Proxy = p.Address(j.query.Protocol, j.Dst.Addr())
			j.forward(d.Provider)
		}
	}
	j.Steps = append(j.Steps, step)
}

// authorize asks as the kernel does: about the process that connects, then
// about the origin.
func (j *journey) authorize(step *Step) Decision {
	q := j.query
	d := j.inquire(step, LayerAuthorize, q, j.process)
	if d.Verdict == Pass && len(q.Hops) > 0 {
		q.Process = q.Origin
		d = j.inquire(step, LayerAuthorize, q, j.origin)
		step.Inquiries[1].ForOrigin = true
	}
	return d
}

// supposeTCP asks what would become of TCP, where some filter drops QUIC.
func (j *journey) supposeTCP(step *Step) Decision {
	process := j.process
	return j.table.supposed(j.query, j.table.down(j.trial, TCP, j.Dst.Addr()), func(q Query) Decision {
		d := j.inquire(step, LayerRedirect, q, process)
		step.Inquiries[len(step.Inquiries)-1].AsTCP = true
		process = party{proxyOf: j.table.Providers[d.Provider].Name}
		return d
	})
}

// inquire asks the providers and takes down what they say. process is whom
// the query takes for the one that connects.
func (j *journey) inquire(step *Step, l Layer, q Query, process party) Decision {
	inquiry := Inquiry{Layer: l, Answers: []Answer{}}
	d := j.table.walk(q, l, func(r reply) {
		w := witness{journey: j, query: &q, process: &process, reply: r, span: j.table.Providers[r.provider].filters(l)}
		w.noteUnknown()
		inquiry.Answers = append(inquiry.Answers, w.answer())
	})
	for _, p := range j.table.Providers[len(inquiry.Answers):] {
		inquiry.NotAsked = append(inquiry.NotAsked, p.Name)
	}
	step.Inquiries = append(step.Inquiries, inquiry)
	return d
}

// forward hands the connection to the proxy of provider i, which opens the next one.
func (j *journey) forward(i int) {
	p := &j.table.Providers[i]
	again := slices.Contains(j.Proxies, p.Name)
	j.Proxies = append(j.Proxies, p.Name)
	if j.table.TrackingOff || slices.Contains(j.trial.Unaware, p.Name) {
		j.query.Hops = nil
	} else {
		j.stamp(p)
	}
	next := party{j.trial.Proxies[p.Name], p.Name}
	if next.Cgroup == "" {
		next.Cgroup = p.Cgroup
	}
	j.enter(next)
	j.query.Self = i
	// Without tracking nothing but the provider tells one round from the next.
	if j.ended = again && j.table.TrackingOff; j.ended {
		j.Outcome = Loop.String()
	}
}

// stamp adds the hop, behind the implied one if a provider's process connects
// without records.
func (j *journey) stamp(p *TableProvider) {
	if j.query.Self >= 0 && len(j.query.Hops) == 0 {
		by := &j.table.Providers[j.query.Self]
		j.query.Hops = append(j.query.Hops, Hop{Handle: by.Handle, Weight: by.Weight, Implied: true})
	}
	j.query.Hops = append(j.query.Hops, Hop{Handle: p.Handle, Weight: p.Weight})
}

// hopNumber is the number of a connection with these hops in its flow. An
// implied hop is no connection of the flow's.
func hopNumber(hops []Hop) int {
	if len(hops) > 0 && hops[0].Implied {
		return len(hops) - 1
	}
	return len(hops)
}
