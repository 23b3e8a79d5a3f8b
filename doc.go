// Package waybill lets any number of local transparent proxies stand in front
// of a program, in order and without loops.
//
// When waybill redirects a connection to a proxy, the accepted socket carries
// redirect records: who has redirected the flow so far, from which
// destination. The proxy reads them and sets them on the connection that it
// opens in turn. So every proxy on the way sees a flow once, and the last
// connection reaches the destination that the program asked for.
//
// Most proxies need [Listener], [Conn] and [Dialer]:
//
//	l, err := waybill.Listen(ctx, "tcp", "127.0.0.1:7001")
//	…
//	for {
//		conn, err := l.AcceptConn()
//		…
//		go func() {
//			var d waybill.Dialer
//			upstream, err := d.DialOriginal(ctx, conn)
//			…
//			go io.Copy(upstream, conn.TCPConn)
//			io.Copy(conn.TCPConn, upstream)
//		}()
//	}
//
// A proxy of UDP accepts flows in the place of connections ([ListenPacket]),
// dials with [Dialer.DialOriginalPacket], and relays with a [PacketRelay].
//
// Proxies with sockets of their own use [QueryRecords] and [SetRecords], or
// [Records.Control] with a [net.Dialer]. Underneath are two socket options,
// documented in docs/sockopt.md, that work from any language.
//
// On Linux the package works with the system's waybill, installed and
// configured by the tool of the same name; on Windows with the records that
// the kernel keeps for whatever redirects there: see docs/windows.md. Without,
// every call fails with an error that wraps [ErrNotSupported].
//
// The package starts no goroutine that outlives a call, keeps no state and never
// logs.
package waybill
