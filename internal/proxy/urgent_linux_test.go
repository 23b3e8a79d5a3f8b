package proxy_test

import (
	"strings"
	"testing"
)

// TestUrgentData: an urgent byte arrives as one, at its place, and what follows
// it arrives, too, in both directions: also when the proxy waits in a read that
// finds nothing but the urgent byte, and when that is the first of all.
func TestUrgentData(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"proxy", "watcher"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			env, _ := startRole(t, role)
			got := env.Run("app", "python3", "-c", `
import select, socket
def receive_urgent(b):
    assert select.select([], [], [b], 20)[2], "urgent byte never came"
    b.setblocking(True) # or Python waits for what is not urgent
    assert b.recv(1, socket.MSG_OOB) == b"!"
    b.settimeout(20)
def exchange(a, b):
    for i in range(50):
        a.send(b"!", socket.MSG_OOB)
        receive_urgent(b)
        a.sendall(b"before")
        a.send(b"!", socket.MSG_OOB)
        assert b.recv(100) == b"before"
        receive_urgent(b)
        a.sendall(b"after")
        assert b.recv(100) == b"after"
l = socket.create_server(("192.0.2.1", 80))
c = socket.create_connection(("192.0.2.1", 80), timeout=20)
if "`+role+`" == "proxy": # which inspects, and waits for what it can inspect
    c.sendall(b"?")
s, _ = l.accept()
if "`+role+`" == "proxy":
    s.recv(1)
exchange(c, s)
exchange(s, c)
s.close()
print(c.recv(1))
`)
			if strings.TrimSpace(got) != "b''" {
				t.Errorf("client read %s at the end", got)
			}
		})
	}
}
