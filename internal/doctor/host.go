//go:build linux

package doctor

import (
	"errors"
	"os"
	"os/user"
)

func (x *examination) host() []Finding {
	return []Finding{checkSystemd(), checkGroup()}
}

func checkSystemd() Finding {
	// The test of sd_booted(3).
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return Finding{
			Level: OK, Subject: "systemd runs this host",
			Meaning: "Each service has a cgroup: a provider's process set can be that of its service.",
		}
	}
	return Finding{
		Level: Info, Subject: "systemd does not run this host",
		Meaning: "Nobody gives each service a cgroup: the providers' must be made.",
		Remedy:  "make them with mkdir, and start each proxy in its own",
	}
}

func checkGroup() Finding {
	_, err := user.LookupGroup("waybill")
	var unknown user.UnknownGroupError
	switch {
	case err == nil:
		return Finding{Level: OK, Subject: "the group waybill exists"}
	case errors.As(err, &unknown):
		return Finding{
			Level: Info, Subject: "there is no group waybill",
			Meaning: "Nobody but root can be given access to waybill by membership.",
			Remedy:  "groupadd --system waybill",
		}
	}
	return unseen("the group waybill", err)
}
