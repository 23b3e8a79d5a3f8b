package main

import "github.com/spf13/cobra"

const about = `The part of waybill that is of use on Windows, where the kernel keeps redirect
records, and somebody's driver redirects connections: a proxy that passes the
records on, and a doctor that looks for what redirects.

Errors go to standard error as "waybill: ...", mostly with a line "hint: ..."
after them. The exit status is 0 if all went well and 1 if not: "doctor" found
a problem, or there was an error.`

func commands() []*cobra.Command {
	return []*cobra.Command{newProxy(), newDoctor(), newVersion(), newMan()}
}
