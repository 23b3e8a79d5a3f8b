//go:build linux

package origin

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// fileIDKernfs is FILEID_KERNFS of linux/exportfs.h: the file handle of a
// cgroup is its id.
const fileIDKernfs = 0xfe

// cgroupPath returns the path of a living cgroup from the root of the
// hierarchy. To open by handle needs CAP_DAC_READ_SEARCH.
func cgroupPath(id uint64) (string, error) {
	root, err := cgroup.Root()
	if err != nil {
		return "", err
	}
	mount, err := os.Open(root)
	if err != nil {
		return "", err
	}
	defer mount.Close()
	handle := unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(mount.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("open cgroup %d: %w", id, err)
	}
	defer unix.Close(fd)
	dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	return path.Clean("/" + strings.TrimPrefix(dir, root)), nil
}

var unitSuffixes = []string{".service", ".scope", ".slice", ".socket", ".mount", ".swap"}

// unit is the innermost systemd unit that a cgroup path names, also one of a
// user's own systemd, as people write it.
func unit(cgroupPath string) string {
	components := strings.Split(cgroupPath, "/")
	for i := len(components) - 1; i >= 0; i-- {
		for _, suffix := range unitSuffixes {
			if name, ok := strings.CutSuffix(components[i], suffix); ok && name != "" {
				// A "_" in front keeps a name apart from the kernel's files.
				return unescape(strings.TrimPrefix(components[i], "_"))
			}
		}
	}
	return ""
}

var escaped = regexp.MustCompile(`\\x[0-9a-fA-F]{2}`)

// unescape undoes systemd-escape for characters that a name can show.
func unescape(name string) string {
	return escaped.ReplaceAllStringFunc(name, func(code string) string {
		var c byte
		if _, err := fmt.Sscanf(code, `\x%02x`, &c); err != nil || c < ' ' || c > '~' {
			return code
		}
		return string(rune(c))
	})
}

// containerID matches the part of a cgroup path that container engines make:
// docker-ID.scope, cri-containerd-ID.scope, libpod-ID.scope, docker/ID,
// kubepods/podUID/ID, slice:cri-containerd:ID.
var containerID = regexp.MustCompile(`^(?:.*[-:])?([0-9a-f]{64})(?:\.scope)?$`)

// container is the id of the innermost container that a cgroup path names.
func container(cgroupPath string) string {
	components := strings.Split(cgroupPath, "/")
	for i := len(components) - 1; i >= 0; i-- {
		// The process that watches over a container is outside.
		if strings.Contains(components[i], "conmon-") {
			continue
		}
		if m := containerID.FindStringSubmatch(components[i]); m != nil {
			return m[1]
		}
	}
	return ""
}
