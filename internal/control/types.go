//go:build linux

// Package control is how the daemon is asked and told things: JSON over HTTP
// on a Unix socket, for the command waybill and for every other program.
// docs/api.md is the reference.
//
// [Server] serves a [Backend], which is the daemon, and decides who may do
// what. [Client] is the other end.
package control

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
)

// DefaultSocket is where the daemon listens.
const DefaultSocket = "/run/waybill/waybill.sock"

// Backend does what the server is asked for. It need not ask whether the
// caller may: the server has. Methods are called concurrently.
//
// An error that is an [*Error] is answered as it is; one that wraps
// [*policyfile.Error] as problems of the policy; [flowstore.ErrNotFound] as
// 404; any other as 500.
type Backend interface {
	Status(context.Context) (*Status, error)
	Policy(context.Context) (*Policy, error)

	// ApplyPolicy puts a policy in force, whole, and keeps it for the next
	// start. name is for messages. On an error the old one stays.
	ApplyPolicy(ctx context.Context, name string, yaml []byte) (*Applied, error)

	// Explain says what would become of a connection under the policy in force.
	Explain(context.Context, explain.Question) (policy.Explanation, error)

	Flows(context.Context, flowstore.Query) ([]flow.Flow, error)
	Flow(context.Context, flow.ID) (*flow.Flow, error)
	SQL(ctx context.Context, query string) (columns []string, rows [][]any, err error)

	// Follow calls ready once, and with each flow that changes from then on
	// do, as the flow stands then, until ctx ends or do fails, and returns that
	// error. do may be slow: nothing else waits for it, and changes of one flow
	// that it missed come as one. If too many flows wait for it, that is an error.
	Follow(ctx context.Context, ready func(), do func(flow.Flow) error) error

	// Run moves the peer's process into a cgroup of its own, whose connections
	// go through the providers of r, until the closer is closed. What is left
	// in the cgroup then goes on, and is redirected no more than others are.
	// If the peer's process may have been replaced it is [Peer.Check] that
	// says so, after the move.
	Run(ctx context.Context, p *Peer, r RunRequest) (*RunResult, io.Closer, error)
}

// Version is what a client can know before anything else.
type Version struct {
	Version string `json:"version"` // of waybill
	API     int    `json:"api"`     // 1
}

// Status is all that a daemon says about itself at one moment.
type Status struct {
	Version   string            `json:"version"`
	PID       int               `json:"pid"`
	Started   time.Time         `json:"started"`
	Scope     string            `json:"scope"`           // directory of the cgroup that is covered
	State     string            `json:"state,omitempty"` // directory of what is pinned; empty: nothing is
	Adopted   bool              `json:"adopted"`         // State was there and has been taken over
	Policy    PolicyStatus      `json:"policy"`
	Providers []Provider        `json:"providers"` // in their order: the heaviest first
	Counters  map[string]uint64 `json:"counters"`  // of the kernel programs, by the names of the engine
	InFlight  int               `json:"in_flight"` // connections between connect() and the proxy's end of the handshake
	Runs      int               `json:"runs"`      // of Backend.Run, at present
	Unmatched []string          `json:"unmatched"` // conditions that can match nothing, as what they name does not exist
	Warnings  []string          `json:"warnings"`  // what a person should look at
}

// Mode of a policy or of one of its providers.
type Mode string

const (
	Enforce Mode = "enforce"
	Shadow  Mode = "shadow" // counts and reports, and does nothing
)

// PolicyStatus describes the policy in force.
type PolicyStatus struct {
	Name       string    `json:"name"` // of its file; empty: none was ever applied
	Generation uint32    `json:"generation"`
	Applied    time.Time `json:"applied,omitzero"`
	Mode       Mode      `json:"mode"`
	Filters    int       `json:"filters"`
}

// Provider is a provider of the policy in force, and how it fares.
type Provider struct {
	Name      string           `json:"name"`
	Weight    int32            `json:"weight"`
	Addresses []Address        `json:"addresses"` // one for each family that it has
	Processes Processes        `json:"processes"`
	OnDown    string           `json:"on_down"` // "bypass" or "block"
	Mode      Mode             `json:"mode"`
	OpenTo    []string         `json:"open_to"` // groups, by name or number
	Counters  ProviderCounters `json:"counters"`
	Proxy     *Proxy           `json:"proxy,omitempty"`   // only if it is started by the daemon
	Problem   string           `json:"problem,omitempty"` // why it is down, for a person
}

// Up reports whether connections can be redirected to all of its addresses.
func (p *Provider) Up() bool {
	for _, a := range p.Addresses {
		if !a.Listening || a.Problem != "" {
			return false
		}
	}
	return len(p.Addresses) > 0
}

// Address of a provider's proxy.
type Address struct {
	Address   netip.AddrPort `json:"address"`
	Protocol  string         `json:"protocol,omitempty"` // "udp"; empty: TCP
	Listening bool           `json:"listening"`          // a process of the provider does, now
	Waiting   int            `json:"waiting,omitempty"`  // connections that it has not accepted yet
	Problem   string         `json:"problem,omitempty"`  // why no connection is redirected there, for a person
}

// Processes says who belongs to a provider, in the way in which the policy
// says it, and who that is now.
type Processes struct {
	Unit   string   `json:"unit,omitempty"`
	Exec   []string `json:"exec,omitempty"`
	User   string   `json:"user,omitempty"`
	Cgroup string   `json:"cgroup,omitempty"` // its directory, also of a unit or command whose cgroup exists
	PIDs   []int    `json:"pids"`
}

// ProviderCounters counts the connections that a provider wanted.
type ProviderCounters struct {
	Redirected uint64 `json:"redirected"`
	Arrived    uint64 `json:"arrived"` // of those, handed to the proxy with their records
	Bypassed   uint64 `json:"bypassed"`
	Blocked    uint64 `json:"blocked"`
	Forbidden  uint64 `json:"forbidden"`
	Shadowed   uint64 `json:"shadowed"`
	Inherited  uint64 `json:"inherited"` // connections of its proxy that took over the records of one it accepted
	Reset      uint64 `json:"reset"`     // redirected connections that its proxy reset
}

// Proxy is one that the daemon starts and keeps running.
type Proxy struct {
	Running  bool      `json:"running"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"` // it runs, or does not
	Restarts int       `json:"restarts"`
	LastExit string    `json:"last_exit,omitempty"`
	Tail     []string  `json:"tail,omitempty"` // the last lines that it printed
}

// Policy is the policy in force as it was written.
type Policy struct {
	PolicyStatus
	YAML string `json:"yaml"`
}

// Applied is the answer to a policy that is in force now.
type Applied struct {
	Generation uint32               `json:"generation"`
	Providers  int                  `json:"providers"`
	Filters    int                  `json:"filters"`
	Warnings   []policyfile.Problem `json:"warnings"`
}

// Table is the answer to a query in SQL. The values are nil, numbers and
// strings; bytes are in base64.
type Table struct {
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"`
}

// RunRequest says how the caller's connections are to go.
type RunRequest struct {
	Via []string `json:"via"` // providers, in the order of the policy
}

// RunResult says where the caller is now.
type RunResult struct {
	Cgroup string   `json:"cgroup"` // its directory
	Via    []string `json:"via"`
}
