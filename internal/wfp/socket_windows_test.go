package wfp

import (
	"os"
	"testing"

	"golang.org/x/sys/windows"
)

// TestWinsock makes the three requests to a socket of the system. Wine itself
// answers WSA_IO_PENDING, with an event that it never sets; the stand-in of
// .ci/wine answers that the socket is not connected.
func TestWinsock(t *testing.T) {
	query, set := ENOTCONN, EINVAL
	if os.Getenv("WAYBILL_WINE_PLAIN") != "" {
		query, set = EOPNOTSUPP, EOPNOTSUPP
	}
	for _, flags := range []uint32{windows.WSA_FLAG_OVERLAPPED, 0} {
		s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, 0, nil, 0, flags)
		if err != nil {
			t.Fatal(err)
		}
		defer windows.Closesocket(s)
		for _, code := range []Code{QueryRecords, QueryContext} {
			if b, err := Query(t.Context(), Handle(s), code); err != query {
				t.Errorf("flags %d, code %#x: %d bytes, %v, want %d", flags, code, len(b), err, query)
			}
		}
		if err := Set(t.Context(), Handle(s), []byte("no records")); err != set {
			t.Errorf("flags %d, set: %v, want %d", flags, err, set)
		}
	}
}
