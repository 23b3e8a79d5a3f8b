package waybill_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/waybill-net/waybill"
)

// A whole proxy: accept, look, dial on, relay.
func Example() {
	ctx := context.Background()
	l, err := waybill.Listen(ctx, "tcp", "127.0.0.1:7001")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	heard := application("192.0.2.1:80") // a program that knows nothing of the proxy

	conn, err := l.AcceptConn()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conn.Origin().Comm, "wants to reach", conn.OriginalDestination())

	var d waybill.Dialer
	upstream, err := d.DialOriginal(ctx, conn)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		io.Copy(upstream, conn.TCPConn)
		upstream.CloseWrite()
	}()
	io.Copy(conn.TCPConn, upstream)
	conn.Close()
	fmt.Println("it heard", heard())
	// Output:
	// python3 wants to reach 192.0.2.1:80
	// it heard pong
}

// A proxy that dials with a net.Dialer of its own.
func ExampleRecords_Control() {
	l, err := net.Listen("tcp", "127.0.0.1:7001")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	heard := application("192.0.2.1:80")

	accepted, err := l.Accept()
	if err != nil {
		log.Fatal(err)
	}
	records, err := waybill.QueryRecords(accepted.(*net.TCPConn))
	if err != nil {
		log.Fatal(err)
	}
	d := net.Dialer{Control: records.Control}
	upstream, err := d.Dial("tcp", "192.0.2.1:80")
	if err != nil {
		log.Fatal(err)
	}
	state, hops, err := waybill.QueryState(upstream.(*net.TCPConn))
	fmt.Println(state, hops, err)
	upstream.Close()
	accepted.Close()
	heard()
	// Output:
	// redirected-by-self 1 <nil>
}

// The redirect context is what the provider's filter says about a connection.
func ExampleQueryContext() {
	l, err := waybill.Listen(context.Background(), "tcp", "127.0.0.1:7001")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	heard := application("192.0.2.1:80")

	conn, err := l.AcceptConn()
	if err != nil {
		log.Fatal(err)
	}
	about, err := waybill.QueryContext(conn)
	fmt.Printf("%s %v\n", about, err)
	conn.Close()
	heard()
	// Output:
	// tenant=42 <nil>
}
