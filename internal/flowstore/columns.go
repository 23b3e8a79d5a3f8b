package flowstore

import (
	"strings"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
)

// column ties a column of a table to a variable. One list of columns both
// writes a row, from the variables, and reads it, into them.
type column struct {
	name  string
	value any // of a type that database/sql writes and reads, such as those in values.go
}

// flowColumns are those of table flows that are read again.
func flowColumns(f *flow.Flow) []column {
	return []column{
		{"id", identity{&f.ID}},
		{"executable", text[string]{&f.Details.Executable}},
		{"unverified", &f.Details.Unverified},
		{"args", list{&f.Details.Args}},
		{"user", text[string]{&f.Details.User}},
		{"cgroup", text[string]{&f.Details.Cgroup}},
		{"unit", text[string]{&f.Details.Unit}},
		{"container", text[string]{&f.Details.Container}},
	}
}

// derivedColumns are the others. They follow from the hops, and are there for
// people who ask.
func derivedColumns(f *flow.Flow) []column {
	program := f.Program()
	var pid, uid, sent, received any
	if f.Process.PID != 0 {
		pid, uid = f.Process.PID, f.Process.UID
	}
	if s, r, known := f.Bytes(); known {
		sent, received = number[uint64]{&s}, number[uint64]{&r}
	}
	return []column{
		{"started", moment{&f.Start}},
		{"ended", moment{&f.End}},
		{"outcome", text[flow.Outcome]{&f.Outcome}},
		{"program", text[string]{&program}},
		{"pid", pid},
		{"uid", uid},
		{"protocol", text[flow.Protocol]{&f.Protocol}},
		{"destination", address{&f.Dst}},
		{"port", port{&f.Dst}},
		{"name", text[string]{&f.Name}},
		{"sent", sent},
		{"received", received},
	}
}

func hopColumns(id *flow.ID, h *flow.Hop) []column {
	return append([]column{
		{"flow", identity{id}},
		{"n", &h.N},
		{"kind", text[flow.Kind]{&h.Kind}},
		{"provider", text[string]{&h.Provider}},
		{"filter", text[string]{&h.Filter}},
		{"state", text[string]{&h.State}},
		{"protocol", text[flow.Protocol]{&h.Protocol}},
		{"destination", address{&h.Dst}},
		{"port", port{&h.Dst}},
		{"name", text[string]{&h.Name}},
		{"kinship", text[flow.Kinship]{&h.Kinship}},
		{"connected", moment{&h.Connected}},
		{"accepted", moment{&h.Accepted}},
		{"closed", moment{&h.Closed}},
		{"duration", since{h.Closed, number[time.Duration]{&h.Duration}}},
		{"sent", since{h.Closed, number[uint64]{&h.Sent}}},
		{"received", since{h.Closed, number[uint64]{&h.Received}}},
		{"error", text[string]{&h.Error}},
	}, processColumns(h.Connected, &h.Process)...)
}

func processColumns(seen time.Time, p *flow.Process) []column {
	return []column{
		{"pid", since{seen, number[uint32]{&p.PID}}},
		{"uid", since{seen, number[uint32]{&p.UID}}},
		{"gid", since{seen, number[uint32]{&p.GID}}},
		{"comm", text[string]{&p.Comm}},
		{"process_started", since{seen, number[time.Duration]{&p.Start}}},
		{"cgroup_id", since{seen, number[uint64]{&p.CgroupID}}},
		{"netns_cookie", since{seen, number[uint64]{&p.NetNS}}},
		{"device", since{seen, number[uint64]{&p.Device}}},
		{"inode", since{seen, number[uint64]{&p.Inode}}},
		{"args", list{&p.Args}},
	}
}

func skipColumns(id *flow.ID, hop, n *int, s *flow.Skip) []column {
	return []column{
		{"flow", identity{id}},
		{"hop", hop},
		{"n", n},
		{"provider", (*string)(&s.Provider)},
		{"reason", (*string)(&s.Reason)},
	}
}

func linkColumns(id *flow.ID, n *int, earlier *flow.ID) []column {
	return []column{
		{"flow", identity{id}},
		{"n", n},
		{"earlier", identity{earlier}},
	}
}

func names(columns []column) string {
	var list []string
	for _, c := range columns {
		list = append(list, c.name)
	}
	return strings.Join(list, ", ")
}

func values(columns []column) []any {
	list := make([]any, len(columns))
	for i, c := range columns {
		list[i] = c.value
	}
	return list
}

// upsert is the statement that writes the columns of a row over those that it
// may have already.
func upsert(table, key string, columns []column) string {
	var set []string
	for _, c := range columns {
		set = append(set, c.name+" = excluded."+c.name)
	}
	return "INSERT INTO " + table + " (" + names(columns) + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")" +
		" ON CONFLICT (" + key + ") DO UPDATE SET " + strings.Join(set, ", ")
}
