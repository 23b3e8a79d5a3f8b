package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-net/waybill"
	"github.com/waybill-net/waybill/internal/proxy"
)

const (
	packetsRole    = "packets"
	onePacketsRole = "one flow of packets"
)

// playPackets relays UDP and prints all events in the end.
func playPackets(ctx context.Context, maxFlows int) error {
	l, err := waybill.ListenPacket(ctx, "udp", "127.0.0.1:7001")
	if err != nil {
		return err
	}
	os.Stdout.WriteString("ready\n")
	events := make(chan string, 100)
	p := proxy.Packets{MaxFlows: maxFlows, Report: func(e proxy.PacketEvent) {
		events <- fmt.Sprintf("%q to %v refused=%t ", e.First, e.Conn.OriginalDestination(), errors.Is(e.Err, syscall.ECONNREFUSED))
	}, Refused: func(n int) { events <- fmt.Sprintf("over the bound %d ", n) }}
	err = p.Serve(ctx, l)
	close(events)
	for e := range events {
		os.Stdout.WriteString(e)
	}
	os.Stdout.WriteString("\n")
	return err
}

// TestPacketsRefused: a destination where nobody listens ends no flow, is
// reported once, and gets what is sent when it has come back.
func TestPacketsRefused(t *testing.T) {
	t.Parallel()
	env, relay := startRole(t, packetsRole)
	got := strings.TrimSpace(env.Run("app", "python3", "-c", `
import socket
def refused(): # datagrams of this network namespace that found no socket
    return int([l for l in open("/proc/net/snmp") if l.startswith("Udp:")][1].split()[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect(("192.0.2.1", 80))
for i in range(1, 4):
    s.send(b"lost")
    while refused() < i:
        pass
origin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
origin.settimeout(20)
origin.bind(("192.0.2.1", 80))
s.send(b"ping")
data, sender = origin.recvfrom(99)
origin.sendto(b"pong", sender)
print(data, s.recv(99))
`))
	if want := "b'ping' b'pong'"; got != want {
		t.Errorf("origin and client heard %s, want %s", got, want)
	}
	want := `"lost" to 192.0.2.1:80 refused=false "" to 192.0.2.1:80 refused=true`
	if got := strings.TrimSpace(relay.Stop(syscall.SIGTERM)); got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

// TestMaxFlows: what is over the bound reaches nobody, and is counted; the flow
// that is open goes on.
func TestMaxFlows(t *testing.T) {
	t.Parallel()
	env, relay := startRole(t, onePacketsRole)
	got := strings.TrimSpace(env.Run("app", "python3", "-c", `
import socket
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(20)
    return s
origin, a, b = udp(), udp(), udp()
origin.bind(("192.0.2.1", 80))
a.connect(("192.0.2.1", 80))
b.connect(("192.0.2.1", 80))
for s, d in (a, b"first"), (b, b"over"), (b, b"over"), (a, b"last"):
    s.send(d)
    if s is a:
        data, sender = origin.recvfrom(99)
        origin.sendto(b"pong " + data, sender)
        print(a.recv(99))
`))
	if want := "b'pong first'\nb'pong last'"; got != want {
		t.Errorf("client heard %s, want %s", got, want)
	}
	got = strings.TrimSpace(relay.Stop(syscall.SIGTERM))
	if first, rest, _ := strings.Cut(got, " over the bound "); first != `"first" to 192.0.2.1:80 refused=false` || rest != "1" && rest != "2" {
		t.Errorf("events %s", got) // the two may come at once, and be one flow
	}
}
