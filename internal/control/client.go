//go:build linux

package control

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/waybill-net/waybill/internal/explain"
	"github.com/waybill-net/waybill/internal/flow"
	"github.com/waybill-net/waybill/internal/flowstore"
	"github.com/waybill-net/waybill/internal/policy"
)

// ErrNoDaemon says that nobody listens on the socket.
var ErrNoDaemon = errors.New("no daemon listens there")

// Client asks a daemon. The zero value asks the one at [DefaultSocket]. What
// its methods return as errors are [*Error] where the daemon said no.
type Client struct {
	Socket string
}

// Version returns which waybill the daemon is.
func (c Client) Version(ctx context.Context) (*Version, error) {
	return ask[*Version](ctx, c, http.MethodGet, "/v1/version", nil, nil)
}

// Status returns all that the daemon says about itself.
func (c Client) Status(ctx context.Context) (*Status, error) {
	return ask[*Status](ctx, c, http.MethodGet, "/v1/status", nil, nil)
}

// Providers returns the providers of the policy in force.
func (c Client) Providers(ctx context.Context) ([]Provider, error) {
	return ask[[]Provider](ctx, c, http.MethodGet, "/v1/providers", nil, nil)
}

// Policy returns the policy in force.
func (c Client) Policy(ctx context.Context) (*Policy, error) {
	return ask[*Policy](ctx, c, http.MethodGet, "/v1/policy", nil, nil)
}

// ApplyPolicy puts a policy in force. name is for messages. The error has
// Problems if the policy can not be.
func (c Client) ApplyPolicy(ctx context.Context, name string, yaml []byte) (*Applied, error) {
	return ask[*Applied](ctx, c, http.MethodPut, "/v1/policy", url.Values{"name": {name}}, yaml)
}

// Explain returns what would become of a connection.
func (c Client) Explain(ctx context.Context, q explain.Question) (policy.Explanation, error) {
	return post[policy.Explanation](ctx, c, "/v1/policy/explain", q)
}

// Flows returns the flows that a query selects, newest first. Its UID and ID
// do not count: who is not root has his own flows only.
func (c Client) Flows(ctx context.Context, q flowstore.Query) ([]flow.Flow, error) {
	return ask[[]flow.Flow](ctx, c, http.MethodGet, "/v1/flows", parameters(q), nil)
}

// Flow returns one flow.
func (c Client) Flow(ctx context.Context, id flow.ID) (*flow.Flow, error) {
	return ask[*flow.Flow](ctx, c, http.MethodGet, "/v1/flows/"+id.String(), nil, nil)
}

// SQL answers a query about flows. Numbers in the answer are [json.Number]: a
// float64 would lose bits.
func (c Client) SQL(ctx context.Context, query string) (*Table, error) {
	return post[*Table](ctx, c, "/v1/sql", sqlRequest{query})
}

func parameters(q flowstore.Query) url.Values {
	values := make(url.Values)
	set := func(name, value string, given bool) {
		if given {
			values.Set(name, value)
		}
	}
	set("since", q.Since.Format(time.RFC3339Nano), !q.Since.IsZero())
	set("until", q.Until.Format(time.RFC3339Nano), !q.Until.IsZero())
	set("limit", strconv.Itoa(q.Limit), q.Limit > 0)
	set("program", q.Program, q.Program != "")
	set("provider", q.Provider, q.Provider != "")
	return values
}

func post[T any](ctx context.Context, c Client, path string, body any) (answer T, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return answer, err
	}
	return ask[T](ctx, c, http.MethodPost, path, nil, text)
}

func ask[T any](ctx context.Context, c Client, method, path string, values url.Values, body []byte) (answer T, err error) {
	r, err := c.open(ctx, method, path, values, body)
	if err != nil {
		return answer, err
	}
	defer r.Close()
	d := json.NewDecoder(r)
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return answer, fmt.Errorf("read answer to %s %s: %w", method, path, err)
	}
	return answer, nil
}

// open returns the body of an answer that is not an error. Each has a
// connection of its own: the end of one means something to the daemon.
func (c Client) open(ctx context.Context, method, path string, values url.Values, body []byte) (io.ReadCloser, error) {
	target := url.URL{Scheme: "http", Host: "waybill", Path: path, RawQuery: values.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", cmp.Or(c.Socket, DefaultSocket))
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, noAnswer(c.Socket, err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		return nil, readError(answer)
	}
	return answer.Body, nil
}

// noAnswer says what to do when the daemon can not be reached.
func noAnswer(socket string, err error) error {
	socket = cmp.Or(socket, DefaultSocket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &Error{
			Message: fmt.Sprintf("connect to %s: %v", socket, ErrNoDaemon),
			Hint:    "start it: systemctl start waybill, or: waybill daemon",
			cause:   ErrNoDaemon,
		}
	case errors.Is(err, fs.ErrPermission):
		return &Error{
			Message: fmt.Sprintf("connect to %s: permission denied", socket),
			Hint:    "run it as root, or become a member of the group waybill",
			cause:   fs.ErrPermission,
		}
	}
	return fmt.Errorf("ask daemon at %s: %w", socket, err)
}

func readError(answer *http.Response) error {
	e := &Error{Status: answer.StatusCode}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err == nil {
		err = json.Unmarshal(text, e)
	}
	if err != nil || e.Message == "" {
		return fmt.Errorf("ask daemon: it answers %s", answer.Status)
	}
	return e
}
