package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
)

var errRead = errors.New("hello is read")

// parseHello has crypto/tls read a ClientHello as a server would, and stops it
// before it answers.
func parseHello(message []byte) (*Hello, error) {
	var hello *Hello
	server := tls.QUICServer(&tls.QUICConfig{TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			hello = &Hello{ServerName: info.ServerName, ALPN: info.SupportedProtos}
			return nil, errRead
		},
	}})
	if err := server.Start(context.Background()); err != nil {
		return nil, fmt.Errorf("start reading the ClientHello: %w", err)
	}
	defer server.Close()
	if err := server.HandleData(tls.QUICEncryptionLevelInitial, message); !errors.Is(err, errRead) {
		return nil, fmt.Errorf("parse ClientHello: %w", err)
	}
	return hello, nil
}
