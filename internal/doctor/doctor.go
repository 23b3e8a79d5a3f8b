// Package doctor looks for what could get in waybill's way on this host, and
// says what each thing means and what to do about it. It changes nothing.
package doctor

import (
	"errors"
	"fmt"
	"io/fs"
)

// Level says how bad a finding is.
type Level string

const (
	OK      Level = "ok"
	Info    Level = "info"    // good to know
	Warning Level = "warning" // can change what waybill does
	Problem Level = "problem" // waybill can not work
)

// Finding is what one check found.
type Finding struct {
	Check   string `json:"check"`
	Level   Level  `json:"level"`
	Subject string `json:"subject"`
	Meaning string `json:"meaning,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

// unseen is the finding about something that could not be examined.
func unseen(subject string, err error) Finding {
	f := Finding{
		Level:   Warning,
		Subject: subject + " could not be examined",
		Meaning: fmt.Sprintf("The answer was: %v.", err),
	}
	if errors.Is(err, fs.ErrPermission) {
		f.Level, f.Remedy = Info, withAllRights
	}
	return f
}
