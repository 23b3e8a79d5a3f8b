//go:build linux

package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// answer writes one JSON value. Its error is about the value: a client that
// is gone is no error.
func answer(w http.ResponseWriter, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, text)
	return nil
}

func answerError(w http.ResponseWriter, e *Error) {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // it has nothing but texts and numbers
	}
	write(w, e.Status, text)
}

func write(w http.ResponseWriter, status int, text []byte) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}

// read returns the whole body. From then on the end of the connection ends
// the request's context.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	return body, control.SetReadDeadline(time.Time{})
}

// readJSON reads the body into v. A field that v does not have is an error: it
// would be a wish that is not heard.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := read(w, r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badRequest("docs/api.md has an example", "read body: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("send one JSON object", "read body: there is more behind the object")
	}
	return nil
}

// stream writes JSON values one a line, as they come.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// openStream sends the header, so that the client knows that it has begun.
func openStream(w http.ResponseWriter) (*stream, error) {
	s := &stream{w, http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	return s, s.control.Flush()
}

// send fails if the client does not take the line.
func (s *stream) send(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(append(text, '\n')); err != nil {
		return err
	}
	return s.control.Flush()
}
