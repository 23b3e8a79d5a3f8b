//go:build linux

package doctor_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-net/waybill/internal/doctor"
	"github.com/waybill-net/waybill/internal/testenv"
)

const listenScript = `#!%s
import socket
sockets = []
for host, port in (("127.0.0.1", 8080), ("::", 8081)):
    sockets.append(socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET))
print("ready", flush=True)
while True:
    sockets[0].accept()
`

// TestProxy: a proxy is known by its name, though its executable is python,
// and no longer reported when it is a provider's.
func TestProxy(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	// Not what PATH has, which may be a script that starts another.
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable, end='')").Output()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "mitmdump")
	if err := os.WriteFile(script, fmt.Appendf(nil, listenScript, python), 0o755); err != nil {
		t.Fatal(err)
	}
	env.Listen("127.0.0.1:8082") // by this test, which is no proxy
	server := env.Start("proxy", script)

	o := doctor.Options{Scope: env.Scope}
	findings := examine(t, env, o, "proxies")
	name := fmt.Sprintf("mitmdump[%d] listens on ", server.Cmd.Process.Pid)
	for _, address := range []string{"127.0.0.1:8080,", "[::]:8081,"} {
		f := find(t, findings, name+address)
		if f.Level != doctor.Info || !strings.Contains(f.Remedy, "--mode transparent") {
			t.Errorf("%+v", f)
		}
	}
	if len(findings) != 2 {
		t.Errorf("%+v", findings)
	}

	o.Providers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("127.0.0.1:8081")}
	if findings := examine(t, env, o, "proxies"); len(findings) != 0 {
		t.Errorf("as providers: %+v", findings)
	}
	o.Providers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:8080"), netip.MustParseAddrPort("127.0.0.1:8082")}
	if findings := examine(t, env, o, "proxies"); len(findings) != 2 {
		t.Errorf("with other providers: %+v", findings)
	}
}
