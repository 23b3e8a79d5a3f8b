//go:build linux

package interop

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/policyfile"
	"github.com/waybill-net/waybill/internal/preset"
	"github.com/waybill-net/waybill/internal/supervise"
	"github.com/waybill-net/waybill/internal/testenv"
)

const howToDocs = "../../docs/proxies.md"

// howTo is a section of the document: one proxy, with what a reader is told
// to put into files.
type howTo struct {
	name   string
	files  map[string]string // by their base name
	policy string
}

var (
	howToBlock = regexp.MustCompile("(?ms)^```(\\S+)\n(.*?)^```$")
	howToPath  = regexp.MustCompile(`^(?:#|//) /etc/waybill/(\S+)\n`)
)

func readHowTos(t *testing.T) []howTo {
	t.Helper()
	text, err := os.ReadFile(howToDocs)
	if err != nil {
		t.Fatal(err)
	}
	var found []howTo
	for _, section := range strings.Split(string(text), "\n### ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		h := howTo{name: strings.ToLower(name), files: make(map[string]string)}
		for _, block := range howToBlock.FindAllStringSubmatch(body, -1) {
			if block[1] == "yaml" {
				h.policy = block[2]
				continue
			}
			path := howToPath.FindStringSubmatch(block[2])
			if path == nil {
				t.Fatalf("%s: a file does not begin with its path:\n%s", name, block[2])
			}
			h.files[path[1]] = block[2]
		}
		if h.policy != "" {
			found = append(found, h)
		}
	}
	if len(found) < 6 {
		t.Fatalf("%s has %d how-tos", howToDocs, len(found))
	}
	return found
}

// TestHowTos does what docs/proxies.md says, and sends a request of each
// family; to what takes DNS alone, questions.
func TestHowTos(t *testing.T) {
	t.Setenv("PATH", buildSingBox(t)+":"+os.Getenv("PATH"))
	for _, h := range readHowTos(t) {
		t.Run(h.name, func(t *testing.T) {
			s := newStage(t, nil)
			s.apply(t, s.follow(t, h))
			if h.name == "dnsmasq" {
				s.lookUp(t)
				return
			}
			for _, family := range []int{4, 6} {
				c := &cell{chain: []string{h.name}, load: payloadHTTP, family: family, size: payloadHTTP.size()}
				c.run(t, s)
				if family == 4 && len(c.path) == 0 {
					t.Error("the policy takes no HTTP")
				}
			}
		})
	}
}

// follow writes the files, in another place than the reader does, and starts
// the proxy as its policy says.
func (s *stage) follow(t *testing.T, h howTo) policy.Policy {
	t.Helper()
	dir := openDir(t)
	there := strings.NewReplacer("/etc/waybill/", dir+"/", "/var/lib/mitmproxy", dir+"/mitmproxy")
	for name, text := range h.files {
		write(t, filepath.Join(dir, name), []byte(there.Replace(text)))
	}
	file, err := policyfile.Parse(howToDocs, []byte(there.Replace(h.policy)), policyfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	provider := &file.Policy.Providers[0]
	p := s.startDeclared(t, provider, filepath.Join(dir, h.name))
	p.prepared = &preset.Prepared{Listen6: provider.Listen6, Ports: file.Policy.Filters[0].Ports}
	if p.remote = h.name == "redsocks"; p.remote {
		s.startSOCKS(t)
	}
	s.proxies[h.name] = p
	s.cgroups = s.findCgroups(t)
	return file.Policy
}

// startDeclared starts the command of a provider. Its user owns the directory
// of the proxy, as the reader is told to make it.
func (s *stage) startDeclared(t *testing.T, provider *policy.Provider, dir string) *proxy {
	t.Helper()
	user, err := supervise.LookupUser(provider.User)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, int(user.UID), int(user.GID))); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath(provider.Exec[0])
	if err != nil {
		t.Fatal(err)
	}
	provider.Cgroup = s.env.Cgroup(provider.Name)
	p := &proxy{kind: kind{name: provider.Name}, cgroup: provider.Cgroup}
	process := preset.Process{Listen: provider.Addresses(policy.TCP), Command: supervise.Command{
		Name: provider.Name, Path: path, Args: provider.Exec[1:], User: user, Env: user.Environ(os.Environ()),
	}}
	s.start(t, p, process, provider.Cgroup)
	return p
}

// startSOCKS starts the server that redsocks is told of: outside the scope,
// as if it were on another host.
func (s *stage) startSOCKS(t *testing.T) {
	t.Helper()
	elsewhere := testenv.New(t)
	elsewhere.ShareNetNS(s.env)
	address := netip.AddrPortFrom(testenv.Outside4, 1080)
	s.start(t, &proxy{kind: kind{name: "socks"}}, preset.Process{Listen: []netip.AddrPort{address}, Command: supervise.Command{
		Name: "socks", Path: os.Args[0], Args: []string{"socks-server", address.String()},
	}}, elsewhere.Cgroup("socks"))
}

func (s *stage) start(t *testing.T, p *proxy, c preset.Process, cgroup string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.startProcess(ctx, t, p, c, cgroup); err != nil {
		t.Fatal(err)
	}
}
