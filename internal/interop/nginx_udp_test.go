//go:build linux

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-net/waybill/internal/testenv"
)

const datagramPort = 9000

// TestDatagramForwarder puts nginx, as it is, in front of a server of UDP, and
// lets several sockets of several programs talk to it in turn.
func TestDatagramForwarder(t *testing.T) {
	const clients, sockets, rounds = 3, 4, 5
	for _, tt := range []struct{ name, listen, listen6 string }{
		{"bound to its address", "127.0.0.1", "[::1]"},
		{"bound to all", "0.0.0.0", "[::]"}, // it answers with IP_PKTINFO
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := startForwarding(t, datagramPort, "nginx", "-p", t.TempDir(), "-c", nginxConfig(t, tt.listen, tt.listen6))
			for _, address := range []string{"192.0.2.1:9000", "[2001:db8::1]:9000"} {
				f.env.AnswerDatagrams(address)
			}
			var apps []*testenv.Server
			for range clients {
				apps = append(apps, f.env.Start("app", "python3", "testdata/interleave.py", fmt.Sprint(sockets), fmt.Sprint(rounds), fmt.Sprint(datagramPort)))
			}
			for _, app := range apps {
				if got, want := app.Wait(), fmt.Sprintf("%d answers", 2*sockets*rounds); got != want {
					t.Errorf("a client says %q, want %q", got, want)
				}
			}
			const flows = clients * 2 * sockets
			f.checkCounters(2*flows, flows)
		})
	}
}

// nginxConfig writes the configuration for a forwarder to the two servers.
func nginxConfig(t *testing.T, listen, listen6 string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nginx.conf")
	var module string
	if _, err := os.Stat(nginxStream); err == nil {
		module = "load_module " + nginxStream + ";"
	}
	write(t, path, fmt.Appendf(nil, `%s
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {}
stream {
    server { listen %s:%d; listen %[2]s:%[3]d udp; proxy_pass 192.0.2.1:%[5]d; }
    server { listen %[4]s:%[3]d; listen %[4]s:%[3]d udp; proxy_pass [2001:db8::1]:%[5]d; }
}
`, module, listen, forwarderPort, listen6, datagramPort))
	return path
}

// nginxStream is where Debian has the module.
const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"
