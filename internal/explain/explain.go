//go:build linux

// Package explain answers what would become of a connection on this host.
package explain

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/waybill-net/waybill/internal/cgroup"
	"github.com/waybill-net/waybill/internal/identity"
	"github.com/waybill-net/waybill/internal/policy"
)

// Question is a connection as a person describes it. Only Dst must be given:
// what is left out is not known, and filters that ask for it do not match.
type Question struct {
	Dst           netip.AddrPort    `json:"dst"`
	Program       string            `json:"program,omitempty"`        // path of the executable that connects
	User          string            `json:"user,omitempty"`           // name or number
	Cgroup        string            `json:"cgroup,omitempty"`         // in the cgroup v2 hierarchy
	ProxyPrograms map[string]string `json:"proxy_programs,omitempty"` // by provider
	ProxyUsers    map[string]string `json:"proxy_users,omitempty"`
	UDP           bool              `json:"udp,omitempty"`
	Names         []string          `json:"names,omitempty"`   // that led to the address of Dst
	Down          []string          `json:"down,omitempty"`    // providers whose proxies do not listen
	Unaware       []string          `json:"unaware,omitempty"` // as in policy.Trial
}

// HintedError is an error with what to do about it.
type HintedError struct {
	Err  error
	Hint string
}

func (e *HintedError) Error() string { return e.Err.Error() }
func (e *HintedError) Unwrap() error { return e.Err }

// Answer answers a question about a policy with what its names stand for on
// this host, now.
func Answer(p policy.Policy, q Question) (policy.Explanation, error) {
	ids, err := identity.Resolve(p)
	if err != nil {
		return policy.Explanation{}, fmt.Errorf("explain connection: %w", err)
	}
	table, err := policy.Compile(p, ids)
	if err != nil {
		return policy.Explanation{}, fmt.Errorf("explain connection: %w", err)
	}
	trial := policy.Trial{Protocol: policy.TCP, Dst: q.Dst, Names: q.Names, Down: q.Down, Unaware: q.Unaware}
	if q.UDP {
		trial.Protocol = policy.UDP
	}
	if trial.Client, err = findSubject(q.Program, q.User); err != nil {
		return policy.Explanation{}, err
	}
	if trial.Client.Cgroup, err = findCgroup(q.Cgroup); err != nil {
		return policy.Explanation{}, err
	}
	if trial.Proxies, err = q.proxies(p); err != nil {
		return policy.Explanation{}, err
	}
	return table.Explain(trial)
}

// proxies has what is known of the proxies of the providers that the policy
// or the question names.
func (q *Question) proxies(p policy.Policy) (map[string]policy.Subject, error) {
	users := make(map[string]string)
	for name := range q.ProxyPrograms {
		users[name] = ""
	}
	for _, provider := range p.Providers {
		users[provider.Name] = provider.User
	}
	maps.Copy(users, q.ProxyUsers)
	proxies := make(map[string]policy.Subject)
	for name, user := range users {
		s, err := findSubject(q.ProxyPrograms[name], user)
		if err != nil {
			return nil, err
		}
		proxies[name] = s
	}
	return proxies, nil
}

func findSubject(program, user string) (policy.Subject, error) {
	var s policy.Subject
	var err error
	if program != "" {
		if s.Program, err = checkProgram(program); err == nil {
			s.File, err = identity.Program(s.Program)
		}
		if err != nil {
			return s, fmt.Errorf("explain connection: %w", err)
		}
	}
	if user != "" {
		if s.UID, err = identity.User(user); err != nil {
			return s, fmt.Errorf("explain connection: %w", err)
		}
	}
	s.User = user
	return s, nil
}

func findCgroup(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	root, err := cgroup.Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Clean(path)
	if dir != root && !strings.HasPrefix(dir, root+"/") {
		dir = filepath.Join(root, dir)
	}
	_, err = cgroup.Identify(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &HintedError{fmt.Errorf("explain connection: %w", err), "give a cgroup that exists: /proc/PID/cgroup has that of a process"}
	}
	return dir, err
}

// checkProgram refuses a script: a process that runs one is its interpreter, for
// the filters too.
func checkProgram(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		// It can be executed without being read; that it is not there is found elsewhere.
		return path, nil
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := f.Read(head)
	if line, _, _ := strings.Cut(string(head[:n]), "\n"); strings.HasPrefix(line, "#!") {
		return "", &HintedError{fmt.Errorf("program %s is a script", path), "its interpreter is what connects: name that one; the script begins with " + line}
	}
	return path, nil
}
