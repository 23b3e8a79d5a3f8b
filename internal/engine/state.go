//go:build linux

package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/waybill-net/waybill/internal/cgroup"
)

// A state directory holds the pins of one engine:
//
//	STATE/links/connect4 …   a link holds its program
//	STATE/maps/policies …
//
// It comes into being by one rename, so it is there whole or not at all, and
// whoever uses it holds a lock on it.
type state struct {
	dir  string
	lock *os.File // of dir
}

func (s *state) mapPath(name string) string {
	return filepath.Join(s.dir, "maps", strings.TrimPrefix(name, "."))
}

// policyPath is of the inner map of one generation. It is pinned because to
// open it by the id that the outer map gives takes CAP_SYS_ADMIN.
func (s *state) policyPath(generation uint32) string {
	return s.mapPath(fmt.Sprintf("policy_%d", generation))
}

func (s *state) linkPath(name string) string { return filepath.Join(s.dir, "links", name) }

// ErrInUse says that another process has the state.
var ErrInUse = errors.New("another process has it open")

// ErrUnknownPolicy says that the policy in force is in the kernel alone.
var ErrUnknownPolicy = errors.New("the text of the policy in force is not known; apply one first")

// ErrNoState says that there is no state in a directory.
var ErrNoState = errors.New("no state of waybill")

// VersionError says that state was made by a version whose maps differ.
type VersionError struct {
	Dir  string
	Made string // the version that made it
	This string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("state in %s was made by waybill %s, whose maps are not those of %s", e.Dir, e.Made, e.This)
}

// openState locks the state in dir. It wraps ErrNoState if there is none.
func openState(dir string) (*state, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open state %s: %w", dir, ErrNoState)
	}
	if err != nil {
		return nil, err
	}
	if err := checkOwner(f); err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", dir, err), f.Close())
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("open state %s: %w", dir, err)
	}
	return &state{dir: dir, lock: f}, nil
}

// checkOwner refuses a directory that somebody else has made: a BPF file system
// that was mounted by hand is writable for all.
func checkOwner(dir *os.File) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != uint32(os.Geteuid()) && st.Uid != 0 {
		return errors.New("it is another user's: remove it, and mount the BPF file system with mode=0700")
	}
	return nil
}

// close unlocks before it closes: a process that is just being started has a
// copy of every descriptor until it executes its program.
func (s *state) close() error {
	return errors.Join(syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN), s.lock.Close())
}

// checkBPFFS makes sure that dir can hold pins.
func checkBPFFS(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("keep state below %s: it is not a BPF file system; try: mount -t bpf bpf %s", dir, dir)
	}
	return nil
}

// unfinished returns where state for dir is built. A process that was killed
// there leaves it behind. (A BPF file system allows no dots in names.)
func unfinished(dir string) (pattern, own string) {
	return dir + "-new-*", fmt.Sprintf("%s-new-%d", dir, os.Getpid())
}

// newState makes the directories under a name of their own; publish gives
// them the one that counts.
func newState(dir string) (*state, error) {
	if err := checkBPFFS(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	pattern, own := unfinished(dir)
	if err := sweep(pattern); err != nil {
		return nil, err
	}
	for _, d := range []string{own, filepath.Join(own, "maps"), filepath.Join(own, "links")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, fmt.Errorf("make state: %w", err)
		}
	}
	return openState(own)
}

// sweep removes state that was never finished and that nobody is building.
func sweep(pattern string) error {
	left, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, dir := range left {
		if s, err := openState(dir); err == nil {
			if err := errors.Join(os.RemoveAll(dir), s.close()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *state) publish(dir string) error {
	if err := os.Rename(s.dir, dir); err != nil {
		return fmt.Errorf("make state: %w", err)
	}
	s.dir = dir
	return nil
}

// pin keeps the maps and links beyond the end of this process.
func (e *Engine) pin(s *state) error {
	for name, m := range e.maps {
		if err := m.Pin(s.mapPath(name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for i, l := range e.hooks {
		name := hookNames[i].name
		if err := l.Pin(s.linkPath(name)); err != nil {
			return fmt.Errorf("pin link %s: %w", name, err)
		}
	}
	return nil
}

// abi hashes the shape of all maps: two builds that agree in it can use each
// other's.
func abi(spec *ebpf.CollectionSpec) uint64 {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		if !isKept(name) {
			continue
		}
		fmt.Fprintf(h, "%s %v %d %d %d\n", name, m.Type, m.KeySize, m.ValueSize, m.Flags)
		if !strings.HasPrefix(name, kernelMapInflight) { // those two have a size that is an option
			fmt.Fprintf(h, "%d\n", m.MaxEntries)
		}
		writeShape(h, m.Key, 0)
		writeShape(h, m.Value, 0)
		if m.InnerMap != nil {
			writeShape(h, m.InnerMap.Value, 0)
		}
	}
	// The meaning of numbers in values: counters, kinds, flags.
	for t, err := range spec.Types.All() {
		if enum, ok := t.(*btf.Enum); ok && err == nil && strings.HasPrefix(enum.Name, "wb_") {
			fmt.Fprintf(h, "%s %v\n", enum.Name, enum.Values)
		}
	}
	return binary.LittleEndian.Uint64(h.Sum(nil))
}

// isKept: constants belong to the programs of one build, not to the state.
func isKept(mapName string) bool { return !strings.HasPrefix(mapName, ".rodata") }

func writeShape(w interface{ Write([]byte) (int, error) }, t btf.Type, depth int) {
	const deepest = 16 // our types are trees, and shallow
	if t == nil || depth > deepest {
		return
	}
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		fmt.Fprintf(w, "struct %s %d\n", t.Name, t.Size)
		for _, m := range t.Members {
			fmt.Fprintf(w, "%s %d ", m.Name, m.Offset)
			writeShape(w, m.Type, depth+1)
		}
	case *btf.Array:
		fmt.Fprintf(w, "[%d]", t.Nelems)
		writeShape(w, t.Type, depth+1)
	case *btf.Int:
		fmt.Fprintf(w, "int %d\n", t.Size)
	case *btf.Datasec:
		for _, v := range t.Vars {
			fmt.Fprintf(w, "%s %d %d\n", v.Type.TypeName(), v.Offset, v.Size)
		}
	}
}

func (e *Engine) putMeta(abi uint64, version string) error {
	id, err := cgroup.Identify(e.scope)
	if err != nil {
		return err
	}
	meta := kernelWbMeta{Abi: abi, Cgroup: id.ID}
	putString(meta.Version[:len(meta.Version)-1], version)
	putString(meta.Scope[:len(meta.Scope)-1], e.scope)
	return e.objects.Meta.Put(uint32(0), &meta)
}

func putString(to []int8, s string) {
	for i := range min(len(to), len(s)) {
		to[i] = int8(s[i])
	}
}

func getString(from []int8) string {
	raw := make([]byte, len(from))
	for i, c := range from {
		raw[i] = byte(c)
	}
	raw, _, _ = bytes.Cut(raw, []byte{0})
	return string(raw)
}

// readMeta tells who made the state, and for what. The map is read by its
// size: another version's may have another.
func (s *state) readMeta() (kernelWbMeta, error) {
	var meta kernelWbMeta
	m, err := ebpf.LoadPinnedMap(s.mapPath(kernelMapMeta), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return meta, fmt.Errorf("read state %s: %w", s.dir, err)
	}
	defer m.Close()
	raw, err := m.LookupBytes(uint32(0))
	if err != nil {
		return meta, fmt.Errorf("read state %s: %w", s.dir, err)
	}
	raw = append(raw, make([]byte, binary.Size(&meta))...)
	return meta, binary.Read(bytes.NewReader(raw), binary.NativeEndian, &meta)
}
