//go:build integration

package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a Redis of the test, on a port that it keeps when it is stopped and started again.
type redisServer struct {
	addr string
	dir  string
	args []string
	log  output

	cmd    *exec.Cmd
	exited chan struct{}
}

// startRedis starts a Redis that keeps nothing on disk, with further arguments.
func startRedis(t *testing.T, args ...string) *redisServer {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	r := &redisServer{addr: addr, dir: t.TempDir()}
	r.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", r.dir}, args...)
	r.start(t)
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *redisServer) start(t *testing.T) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server")
	}
	r.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), program, r.args...)
	r.cmd.Dir = r.dir
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killInTime(t, r.cmd)
	exited := make(chan struct{})
	r.exited = exited
	cmd := r.cmd
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	eventually(t, "Redis listens", func() bool {
		select {
		case <-exited:
			t.Fatalf("redis-server ended\n%s", r.log.tail())
		default:
		}
		c, err := net.DialTimeout("tcp", r.addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// stop kills it, as a crash would.
func (r *redisServer) stop(t *testing.T) {
	t.Helper()
	_ = r.cmd.Process.Kill()
	select {
	case <-r.exited:
	case <-time.After(patience):
		t.Error("redis-server does not end")
	}
}

// freeze has it hold its connections and answer nothing, until thaw.
func (r *redisServer) freeze(t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGSTOP)
}

func (r *redisServer) thaw(t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGCONT)
}

func (r *redisServer) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// client is a way in past the edge, to look at what is there.
func (r *redisServer) client(t *testing.T, o redis.Options) *redis.Client {
	t.Helper()
	o.Addr = r.addr
	c := redis.NewClient(&o)
	t.Cleanup(func() { c.Close() })
	return c
}

// counters are the keys of the edges.
func counters(t *testing.T, c *redis.Client) []string {
	t.Helper()
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, "caddy-tinybird:") {
			t.Errorf("the edge wrote %q", key)
		}
	}
	return keys
}

// certificates are the files of an authority, and of one certificate of it for 127.0.0.1 that serves both sides.
type certificates struct{ ca, cert, key string }

func newCertificates(t *testing.T) certificates {
	t.Helper()
	dir := t.TempDir()
	sign := func(name string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (string, *ecdsa.PrivateKey) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = own
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, own.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		return path, own
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "both sides"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	var c certificates
	var signer, own *ecdsa.PrivateKey
	c.ca, signer = sign("ca.pem", root, root, nil)
	c.cert, own = sign("cert.pem", leaf, root, signer)
	der, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	c.key = filepath.Join(dir, "key.pem")
	if err := os.WriteFile(c.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}
