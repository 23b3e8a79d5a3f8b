package waybill

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// Records are the redirect records of one connection: who has redirected the
// flow so far, and from where. The bytes are opaque and sealed. A proxy reads
// them from the connection it accepted and sets them, unaltered, on the one
// that it opens in turn. A nil Records means that there are none.
type Records []byte

// Control sets r on a socket that is about to connect. It has the signature
// of the Control field of [net.Dialer]:
//
//	d := net.Dialer{Control: records.Control}
//
// Without records it does nothing.
func (r Records) Control(network, address string, c syscall.RawConn) error {
	return r.control(context.Background(), c)
}

func (r Records) control(ctx context.Context, c syscall.RawConn) error {
	if len(r) == 0 {
		return nil
	}
	return setRecords(ctx, c, r)
}

// Origin is the process that opened the connection at the start of the chain.
// It stays the same through all proxies.
type Origin struct {
	PID  uint32 // the thread that called connect, in the initial pid namespace
	TGID uint32 // its process
	UID  uint32 // effective, in the initial user namespace
	GID  uint32

	CgroupID    uint64        // of cgroup v2: the inode number of its directory
	NetNSCookie uint64        // as SO_NETNS_COOKIE answers
	Start       time.Duration // of the process, since boot; with TGID it names one process for good
	FlowID      uint64        // one for the application's connection and all that proxies opened for it
	Comm        string        // at most 15 bytes, and chosen by the process: for people, not for decisions

	// The identity of its executable: the inode, and the device of its file
	// system as the kernel numbers it, major << 20 | minor.
	ProgramInode  uint64
	ProgramDevice uint32
}

// State of a connection for one provider, as in Windows'
// FWPS_CONNECTION_REDIRECT_STATE.
type State int

const (
	NotRedirected              State = iota // no records: may be redirected
	RedirectedBySelf                        // the newest redirect is the provider's own: must not be redirected
	RedirectedByOther                       // redirected, but not by this provider: may be redirected
	PreviouslyRedirectedBySelf              // by this provider and later by another: must not be redirected
)

func (s State) String() string {
	switch s {
	case NotRedirected:
		return "not-redirected"
	case RedirectedBySelf:
		return "redirected-by-self"
	case RedirectedByOther:
		return "redirected-by-other"
	case PreviouslyRedirectedBySelf:
		return "previously-redirected-by-self"
	}
	return fmt.Sprintf("State(%d)", int(s))
}
