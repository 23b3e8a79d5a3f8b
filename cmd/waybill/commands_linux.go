package main

import "github.com/spf13/cobra"

const about = `Put any number of local proxies in front of any program, in order and without
loops, even proxies that have never heard of each other.

"run" does it for one command, "daemon" for a host, by a policy. Errors go to
standard error as "waybill: ...", mostly with a line "hint: ..." after them.

The exit status is 0 if all went well and 1 if not: "policy check" found a
problem, "doctor" found one, "demo" did not go as promised, or there was an
error. That of "run" is the command's; see there.`

func commands() []*cobra.Command {
	return []*cobra.Command{
		newRun(), newDaemon(), newStatus(), newProviders(), newPolicy(), newFlows(), newTrace(), newDoctor(), newOff(), newProxy(),
		newDemo(), newVersion(),
		newDemoClient(), newDemoProxy(), newMan(), newSOCKSServer(),
	}
}
