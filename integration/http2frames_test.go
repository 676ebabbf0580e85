//go:build integration

package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// HTTP/2 frame types and flags (RFC 9113, section 6). The frames are written by hand, because a proper client would refuse to
// send what the tests send.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	frameGoAway       = 0x7
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4

	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// field is one header field, in the order and spelling it is sent in.
type field struct{ name, value string }

// h2conn is one HTTP/2 connection with at most one request on it.
type h2conn struct {
	net.Conn
}

// dialH2 connects over TLS, asking for HTTP/2 and for nothing else.
func dialH2(t *testing.T, addr string, roots *x509.CertPool) *h2conn {
	t.Helper()
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: patience},
		Config:    &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12},
	}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if p := c.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Fatalf("the server speaks %q", p)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &h2conn{c}
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// block is a header block of literal fields that are neither indexed nor compressed (RFC 7541, section 6.2.2).
func block(fields []field) []byte {
	var b []byte
	for _, f := range fields {
		b = append(b, 0)
		b = appendText(b, f.name)
		b = appendText(b, f.value)
	}
	return b
}

// appendText writes a string literal with its length as an integer with a prefix of seven bits.
func appendText(b []byte, text string) []byte {
	const most = 1<<7 - 1
	n := len(text)
	if n < most {
		return append(append(b, byte(n)), text...)
	}
	b = append(b, most)
	for n -= most; n >= 1<<7; n >>= 7 {
		b = append(b, byte(n)|1<<7)
	}
	return append(append(b, byte(n)), text...)
}

// outcome is what became of a request: an answer's body, or a reset stream or connection.
type outcome struct {
	body     string
	answered bool // to its end
}

// ask sends frames after the preface, and reads until the stream or the connection ends.
func (c *h2conn) ask(t *testing.T, frames ...[]byte) outcome {
	t.Helper()
	out := append([]byte(preface), frame(frameSettings, 0, 0, nil)...)
	// The server may refuse before it has read everything.
	_, _ = c.Write(append(out, bytes.Join(frames, nil)...))
	var body bytes.Buffer
	for {
		kind, flags, stream, payload, err := c.next()
		switch {
		case err != nil:
			if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
				t.Fatal("no answer, and no end")
			}
			return outcome{body: body.String()}
		case kind == frameSettings && flags&flagAck == 0:
			_, _ = c.Write(frame(frameSettings, flagAck, 0, nil))
		case kind == frameGoAway, kind == frameReset && stream == 1:
			return outcome{body: body.String()}
		case kind == frameData && stream == 1:
			body.Write(payload)
		}
		if (kind == frameData || kind == frameHeaders) && stream == 1 && flags&flagEndStream != 0 {
			return outcome{body: body.String(), answered: true}
		}
	}
}

func (c *h2conn) next() (kind, flags byte, stream uint32, payload []byte, err error) {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, 0, 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:4]) >> 8
	payload = make([]byte, size)
	_, err = io.ReadFull(c, payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), payload, err
}
