//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/waybill-net/waybill/internal/flowstore"
	"github.com/waybill-net/waybill/internal/policyfile"
)

// Error is an answer that is not what was asked for.
type Error struct {
	Status   int                  `json:"-"` // of HTTP; 0: there was no answer
	Message  string               `json:"error"`
	Hint     string               `json:"hint,omitempty"`     // what to do about it
	Problems []policyfile.Problem `json:"problems,omitempty"` // of a policy

	cause error
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.cause }

// asError says in words of HTTP what went wrong.
func asError(err error) *Error {
	var (
		known   *Error
		broken  *policyfile.Error
		tooLong *http.MaxBytesError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &broken):
		return &Error{
			Status:   http.StatusUnprocessableEntity,
			Message:  fmt.Sprintf("the policy has problems: %d", len(broken.Problems)),
			Problems: broken.Problems,
		}
	case errors.As(err, &tooLong):
		return &Error{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("body of more than %d bytes", tooLong.Limit)}
	case errors.Is(err, flowstore.ErrNotFound):
		return &Error{Status: http.StatusNotFound, Message: err.Error(), Hint: "waybill flows lists those that are kept"}
	case errors.Is(err, context.Canceled):
		return &Error{Status: http.StatusServiceUnavailable, Message: "the daemon is stopping"}
	}
	return &Error{Status: http.StatusInternalServerError, Message: err.Error()}
}

func badRequest(hint, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...), Hint: hint}
}
