//go:build unix

package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"slices"
	"strings"
)

// The types of TLS's records (RFC 8446, section 5.1).
const (
	typeHandshake = 22
	typeData      = 23
)

// keyedServer is the server's side of a TLS 1.3 connection of which the test writes the records itself, for what crypto/tls
// does not send: a wish for other keys.
type keyedServer struct {
	net.Conn

	in, out *trafficKey
}

// newKeyedServer has crypto/tls make the handshake, and takes over.
func newKeyedServer(c net.Conn) (*keyedServer, error) {
	config := serverTLS()
	config.MinVersion, config.SessionTicketsDisabled = tls.VersionTLS13, true
	var secrets bytes.Buffer
	config.KeyLogWriter = &secrets
	t := tls.Server(&recordWise{Conn: c}, config)
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	k := &keyedServer{Conn: c}
	suite := t.ConnectionState().CipherSuite
	for line := range strings.Lines(secrets.String()) {
		fields := strings.Fields(line)
		secret, err := hex.DecodeString(fields[2])
		if err != nil {
			return nil, err
		}
		switch fields[0] {
		case "CLIENT_TRAFFIC_SECRET_0":
			k.in, err = newTrafficKey(suite, secret)
		case "SERVER_TRAFFIC_SECRET_0":
			k.out, err = newTrafficKey(suite, secret)
		}
		if err != nil {
			return nil, err
		}
	}
	if k.in == nil || k.out == nil {
		return nil, errors.New("no keys were logged")
	}
	return k, nil
}

// read reads one record.
func (k *keyedServer) read() (kind byte, data []byte, err error) {
	head := make([]byte, headSize)
	if _, err := io.ReadFull(k.Conn, head); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(k.Conn, body); err != nil {
		return 0, nil, err
	}
	plain, err := k.in.aead.Open(nil, k.in.nonce(), body, head)
	if err != nil {
		return 0, nil, err
	}
	plain = bytes.TrimRight(plain, "\x00")
	return plain[len(plain)-1], plain[:len(plain)-1], nil
}

// seal makes a record.
func (k *keyedServer) seal(kind byte, data []byte) []byte {
	head := []byte{typeData, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(data)+1+k.out.aead.Overhead()))
	return k.out.aead.Seal(head, k.out.nonce(), append(bytes.Clone(data), kind), head)
}

// trafficKey is a key for records in one direction (RFC 8446, section 7.3).
type trafficKey struct {
	hash   func() hash.Hash
	size   int // of the cipher's key
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	number uint64 // of the next record
}

func newTrafficKey(suite uint16, secret []byte) (*trafficKey, error) {
	k := &trafficKey{secret: secret}
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
		k.hash, k.size = sha256.New, 16
	case tls.TLS_AES_256_GCM_SHA384:
		k.hash, k.size = sha512.New384, 32
	default:
		return nil, fmt.Errorf("no test for %s", tls.CipherSuiteName(suite))
	}
	return k, k.derive()
}

func (k *trafficKey) derive() error {
	key, err := k.expand("key", k.size)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return err
	}
	k.iv, err = k.expand("iv", 12)
	k.number = 0
	return err
}

// update goes on to the next key (RFC 8446, section 7.2).
func (k *trafficKey) update() {
	k.secret, _ = k.expand("traffic upd", len(k.secret))
	_ = k.derive()
}

func (k *trafficKey) expand(label string, size int) ([]byte, error) {
	label = "tls13 " + label
	info := append([]byte{byte(size >> 8), byte(size), byte(len(label))}, label...)
	return hkdf.Expand(k.hash, k.secret, string(append(info, 0)), size)
}

func (k *trafficKey) nonce() []byte {
	n := bytes.Clone(k.iv)
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], k.number)
	for i, b := range number {
		n[len(n)-8+i] ^= b
	}
	k.number++
	return n
}

// recordWise gives TLS one record after the other, so that it reads nothing that is not its own.
type recordWise struct {
	net.Conn

	rest []byte
}

func (r *recordWise) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		var head [headSize]byte
		if _, err := io.ReadFull(r.Conn, head[:]); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint16(head[3:]))
		if _, err := io.ReadFull(r.Conn, body); err != nil {
			return 0, err
		}
		r.rest = slices.Concat(head[:], body)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// pathOf returns the path of a request.
func pathOf(request []byte) string {
	fields := strings.Fields(string(request))
	if len(fields) < 2 {
		return ""
	}
	return fields[1]
}
