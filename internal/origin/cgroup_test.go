//go:build linux

package origin

import (
	"strings"
	"testing"
)

const (
	outerID = "3f4e4b8f9c1d2e3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2"
	innerID = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

func TestUnitAndContainer(t *testing.T) {
	for _, tt := range []struct{ path, unit, container string }{
		{"", "", ""},
		{"/", "", ""},
		{"/.service", "", ""},
		{"/system.slice", "system.slice", ""},
		{"/system.slice/nginx.service", "nginx.service", ""},
		{"/system.slice/nginx.service/payload/worker", "nginx.service", ""},
		{"/system.slice/ssh.socket", "ssh.socket", ""},
		{"/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", ""},
		{"/user.slice/user-1000.slice/session-3.scope", "session-3.scope", ""},
		{
			"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome.Terminal\\x2d5.scope",
			"app-gnome-org.gnome.Terminal-5.scope", "",
		},
		{"/system.slice/dev-disk-by\\x2duuid-1\\x41.swap", "dev-disk-by-uuid-1A.swap", ""},
		{"/system.slice/a\\x1b\\x2.service", "a\\x1b\\x2.service", ""},
		{"/system.slice/_memory.service", "memory.service", ""},
		{"/system.slice/docker-" + outerID + ".scope", "docker-" + outerID + ".scope", outerID},
		{"/docker/" + outerID, "", outerID},
		{"/docker/" + outerID + "/init.scope", "init.scope", outerID},
		{"/docker/" + outerID + "/docker/" + innerID, "", innerID},
		{"/machine.slice/libpod-" + outerID + ".scope/container", "libpod-" + outerID + ".scope", outerID},
		{"/machine.slice/libpod-conmon-" + outerID + ".scope", "libpod-conmon-" + outerID + ".scope", ""},
		{
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-" + outerID + ".scope",
			"cri-containerd-" + outerID + ".scope", outerID,
		},
		{"/kubepods/besteffort/pod01234567-89ab-cdef-0123-456789abcdef/" + outerID, "", outerID},
		{"/kubepods-pod1.slice:cri-containerd:" + outerID, "", outerID},
		{"/docker/" + outerID[1:], "", ""},
		{"/docker/" + strings.ToUpper(outerID), "", ""},
		{"/docker/" + outerID + "0", "", ""},
	} {
		if got := unit(tt.path); got != tt.unit {
			t.Errorf("unit of %s: got %q, want %q", tt.path, got, tt.unit)
		}
		if got := container(tt.path); got != tt.container {
			t.Errorf("container of %s: got %q, want %q", tt.path, got, tt.container)
		}
	}
}

// FuzzNames: names of cgroups and programs are what their makers like.
func FuzzNames(f *testing.F) {
	f.Add("/system.slice/a\\x2db.service/docker-" + outerID + ".scope")
	f.Add("/_.slice\\x")
	f.Add("42 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n")
	f.Fuzz(func(t *testing.T, path string) {
		startTicks([]byte(path)) // of /proc/PID/stat, where the name has any bytes
		if c := container(path); c != "" && (len(c) != 64 || !strings.Contains(path, c)) {
			t.Errorf("container of %q: got %q", path, c)
		}
		if u := unit(path); len(u) > len(path) || strings.Contains(u, "\x1b") && !strings.Contains(path, "\x1b") {
			t.Errorf("unit of %q: got %q", path, u)
		}
	})
}

func TestStartTicks(t *testing.T) {
	for stat, want := range map[string]int64{
		"42 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 12345 20 21\n":          12345,
		"42 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n":        777,
		"42 (1 2 3) 4\n5) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 0 20 21 22\n": 0,
	} {
		if got, err := startTicks([]byte(stat)); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", stat, got, err, want)
		}
	}
	for _, stat := range []string{"", "1 (a", "1 (a) S 1 2", "1 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x 20"} {
		if got, err := startTicks([]byte(stat)); err == nil {
			t.Errorf("%q: got %d", stat, got)
		}
	}
}
