package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// upstream answers every request with the same two kilobytes, from memory.
type upstream struct {
	addr  string
	close func()

	seen atomic.Pointer[string] // the latest request's credential, while somebody asks for it
	look atomic.Bool
}

// payload is shaped as Tinybird's answers are.
var payload = []byte(`{"meta":[{"name":"pathname","type":"String"},{"name":"views","type":"UInt64"}],"data":[` +
	strings.TrimSuffix(strings.Repeat(`{"pathname":"/pricing/some/page","views":812},`, 42), ",") +
	`],"rows":42,"statistics":{"elapsed":0.001,"rows_read":3600,"bytes_read":460800}}`)

const contentType = "application/json; charset=UTF-8"

// note keeps the credential of a request.
func (u *upstream) note(authorization string) {
	if u.look.Load() {
		u.seen.Store(&authorization)
	}
}

// startPlain speaks just enough HTTP/1.1 to cost next to nothing: GET without a body.
func startPlain(ctx context.Context) (*upstream, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	u := &upstream{addr: ln.Addr().String(), close: func() { _ = ln.Close() }}
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: " + contentType + "\r\nContent-Length: " + strconv.Itoa(len(payload)) + "\r\n\r\n" + string(payload))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go u.serve(c, answer)
		}
	}()
	return u, nil
}

func (u *upstream) serve(c net.Conn, answer []byte) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReaderSize(c, 16<<10)
	for {
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
			if u.look.Load() && bytes.HasPrefix(line, []byte("Authorization: ")) {
				u.note(strings.TrimSpace(string(line[len("Authorization: "):])))
			}
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// startTLS serves HTTP/2 over TLS.
func startTLS(ctx context.Context, cert tls.Certificate) (*upstream, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	u := &upstream{addr: ln.Addr().String()}
	length := strconv.Itoa(len(payload))
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u.note(r.Header.Get("Authorization"))
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Content-Length", length)
			_, _ = w.Write(payload)
		}),
	}
	u.close = func() { _ = server.Close() }
	go func() { _ = server.ServeTLS(ln, "", "") }()
	return u, nil
}
