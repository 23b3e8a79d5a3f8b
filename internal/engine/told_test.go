//go:build linux

package engine_test

import (
	"fmt"
	"maps"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-net/waybill/internal/engine"
	"github.com/waybill-net/waybill/internal/policy"
	"github.com/waybill-net/waybill/internal/testenv"
)

// sprayer sends from two sockets to four ports, 250 datagrams to each, at the
// start and at every signal. One from a new socket to port 8085 is the last.
const sprayer = `
import signal, socket
def new():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def send(s, port):
    try:
        s.sendto(b"x", ("192.0.2.1", port))
    except PermissionError:
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
socks = [new(), new()]
message = "ready"
while True:
    for i in range(250):
        for s in socks:
            for port in (8081, 8082, 8083, 8084):
                send(s, port)
    send(new(), 8085)
    print(message, flush=True)
    message = "again"
    signal.sigwait([signal.SIGUSR1])
`

// TestDatagramsAreToldOnce: what becomes of datagrams that go to no proxy is
// reported once for each socket and destination, and again when it changes.
// Every one of them is counted.
func TestDatagramsAreToldOnce(t *testing.T) {
	t.Parallel()
	env := testenv.New(t)
	e := open(t, env, engine.Options{})
	apply(t, e, toldPolicy(env, policy.ActionBlock))
	events := readEvents(t, e)

	app := env.Start("app", "python3", "-c", sprayer)
	events.expect("at first", map[string]int{
		"forbidden 8081": 2, "refused 8082": 2, "passed 8083": 2, "passed 8084": 2, "forbidden 8085": 1,
	})
	if c := counters(t, e); c["forbidden"] != 501 || c["blocked"] != 500 || c["bypassed"] != 500 || c["shadowed"] != 500 {
		t.Errorf("counters %v", c)
	}
	app.Cmd.Process.Signal(syscall.SIGUSR1)
	events.expect("of the same again", map[string]int{"forbidden 8085": 1})

	apply(t, e, toldPolicy(env, policy.ActionRedirect))
	app.Cmd.Process.Signal(syscall.SIGUSR1)
	events.expect("under another policy", map[string]int{
		"refused 8081": 2, "refused 8082": 2, "passed 8083": 2, "passed 8084": 2, "forbidden 8085": 1,
	})

	// With its proxy alive there are flows, and when it has ended it is news that there are none.
	proxy := env.Start("a", "python3", "-c", `
import signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 7001))
print("ready", flush=True)
signal.pause()
`)
	app.Cmd.Process.Signal(syscall.SIGUSR1)
	events.expect("with a proxy", map[string]int{"redirected 8081": 2, "redirected 8082": 2, "forbidden 8085": 1})
	proxy.Kill()
	app.Cmd.Process.Signal(syscall.SIGUSR1)
	events.expect("after its end", map[string]int{"refused 8081": 2, "refused 8082": 2, "forbidden 8085": 1})
}

// toldPolicy has a provider that blocks while it is down, one that is bypassed
// then, and one in shadow mode.
func toldPolicy(env *testenv.Env, action policy.Action) policy.Policy {
	p := udpChain(env, "a", "b", "c")
	p.Providers[0].OnDown = policy.Block
	p.Providers[2].Shadow = true
	p.Filters = []policy.Filter{
		{Name: "8081", Provider: "a", Action: action},
		{Name: "8082", Provider: "a"},
		{Name: "8083", Provider: "b"},
		{Name: "8084", Provider: "c"},
		{Name: "8085", Provider: "b", Action: policy.ActionBlock},
	}
	for i := range p.Filters {
		p.Filters[i].Protocols = []policy.Protocol{policy.UDP}
		p.Filters[i].Ports = []policy.PortRange{policy.Port(uint16(8081 + i))}
	}
	return p
}

// expect reads up to the event of the sprayer's last datagram, and counts by
// kind and port.
func (r *eventReader) expect(when string, want map[string]int) {
	r.t.Helper()
	got := make(map[string]int)
	for got["forbidden 8085"] == 0 {
		r.events.SetDeadline(time.Now().Add(20 * time.Second))
		event, err := r.events.Read()
		if err != nil {
			r.t.Fatalf("%s: %v; so far %v", when, err, got)
		}
		got[fmt.Sprintf("%s %d", event.Kind, event.Dst.Port())]++
	}
	if !maps.Equal(got, want) {
		r.t.Errorf("%s: events %v, want %v", when, got, want)
	}
}
