package flowstore

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/waybill-net/waybill/internal/flow"
)

// The types below write a variable into a column and read it back. What is
// empty is NULL in the file.

type text[S ~string] struct{ s *S }

func (t text[S]) Value() (driver.Value, error) {
	if *t.s == "" {
		return nil, nil
	}
	return string(*t.s), nil
}

func (t text[S]) Scan(v any) error {
	s, err := scanText(v)
	*t.s = S(s)
	return err
}

func scanText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	return "", fmt.Errorf("a %T where text belongs", v)
}

type identity struct{ id *flow.ID }

func (i identity) Value() (driver.Value, error) { return i.id.String(), nil }

func (i identity) Scan(v any) error {
	s, err := scanText(v)
	if err != nil {
		return err
	}
	return i.id.UnmarshalText([]byte(s))
}

// moment is kept in nanoseconds since 1970.
type moment struct{ t *time.Time }

func (m moment) Value() (driver.Value, error) {
	if m.t.IsZero() {
		return nil, nil
	}
	return m.t.UnixNano(), nil
}

func (m moment) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*m.t = time.Time{}
		return nil
	case int64:
		*m.t = time.Unix(0, v)
		return nil
	}
	return fmt.Errorf("a %T where nanoseconds belong", v)
}

// number has up to 64 bits, perhaps without a sign, which neither SQLite nor
// database/sql has: what is above 2^63 is negative in the file, and itself
// again when it is read.
type number[N ~uint32 | ~int64 | ~uint64] struct{ n *N }

func (n number[N]) Value() (driver.Value, error) { return int64(*n.n), nil }

func (n number[N]) Scan(v any) error {
	i, ok := v.(int64)
	if !ok {
		return fmt.Errorf("a %T where a number belongs", v)
	}
	*n.n = N(i)
	return nil
}

// since is NULL until an event has come that says what the value is. NULL
// leaves the variable as it is.
type since struct {
	event time.Time
	value interface {
		driver.Valuer
		sql.Scanner
	}
}

func (s since) Value() (driver.Value, error) {
	if s.event.IsZero() {
		return nil, nil
	}
	return s.value.Value()
}

func (s since) Scan(v any) error {
	if v == nil {
		return nil
	}
	return s.value.Scan(v)
}

// list is a JSON array of texts.
type list struct{ s *[]string }

func (l list) Value() (driver.Value, error) {
	if len(*l.s) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(*l.s)
	return string(b), err
}

func (l list) Scan(v any) error {
	s, err := scanText(v)
	*l.s = nil
	if err != nil || s == "" {
		return err
	}
	return json.Unmarshal([]byte(s), l.s)
}

// address and port are the two halves of one variable.
type (
	address struct{ a *netip.AddrPort }
	port    struct{ a *netip.AddrPort }
)

func (a address) Value() (driver.Value, error) {
	if !a.a.IsValid() {
		return nil, nil
	}
	return a.a.Addr().String(), nil
}

func (a address) Scan(v any) error {
	s, err := scanText(v)
	if err != nil || s == "" {
		return err
	}
	addr, err := netip.ParseAddr(s)
	*a.a = netip.AddrPortFrom(addr, a.a.Port())
	return err
}

func (p port) Value() (driver.Value, error) {
	if !p.a.IsValid() {
		return nil, nil
	}
	return int64(p.a.Port()), nil
}

func (p port) Scan(v any) error {
	if n, ok := v.(int64); ok {
		*p.a = netip.AddrPortFrom(p.a.Addr(), uint16(n))
	}
	return nil
}
