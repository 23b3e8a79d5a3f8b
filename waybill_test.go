package waybill_test

import (
	"testing"

	"github.com/waybill-net/waybill"
)

func listen(t *testing.T, address string) *waybill.Listener {
	t.Helper()
	l, err := waybill.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l *waybill.Listener) *waybill.Conn {
	t.Helper()
	c, err := l.AcceptConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
