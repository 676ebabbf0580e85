package sharedlimit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

const planted = "hunter2"

// probed opens a store at an address and asks it once, under the limits of a machine that may be busy.
func probed(t *testing.T, address string) error {
	t.Helper()
	a, err := ParseURL(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Redis: a.Redis, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Probe(t.Context())
	return errors.Join(err, s.Close())
}

// answering is a server that does to each connection what serve does.
func answering(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// TestProbe: what each mistake in an address and each state of a store is called, and that none of it shows the credentials.
func TestProbe(t *testing.T) {
	t.Parallel()
	open, locked, readOnly := miniredis.RunT(t), miniredis.RunT(t), miniredis.RunT(t)
	locked.RequireUserAuth(planted+"-user", planted)
	failing := map[string]string{
		"may not": "NOPERM User hunter2-user has no permissions to run the 'evalsha' command", "unknown": "ERR unknown command 'EVALSHA', with args beginning with: 'hunter2'",
		"node": "MOVED 3999 hunter2:6381", "replica": "READONLY You can't write against a read only replica.", "odd": "HUNTER2hunter2 what", "loading": "LOADING Redis is loading",
	}
	refusing := make(map[string]string)
	for name, text := range failing {
		m := miniredis.RunT(t)
		m.Server().SetPreHook(func(c *server.Peer, command string, _ ...string) bool {
			if command != "EVALSHA" && command != "EVAL" {
				return false
			}
			c.WriteError(text)
			return true
		})
		refusing[name] = m.Addr()
	}
	gone := answering(t, func(net.Conn) {})
	echo := answering(t, func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 512)
		n, _ := c.Read(buf)
		_, _ = c.Write([]byte("HTTP/1.1 400 " + strings.ReplaceAll(string(buf[:n]), "\r\n", " ") + "\r\n\r\n"))
	})
	for name, tt := range map[string]struct {
		address string
		kind    Kind
		text    string
	}{
		"nobody":             {"redis://:hunter2@127.0.0.1:1", Away, "connection refused"},
		"hangs up":           {"redis://:hunter2@" + gone, Away, ""},
		"no password":        {"redis://" + locked.Addr(), Password, "NOAUTH"},
		"another password":   {"redis://hunter2-user:hunter2hunter2@" + locked.Addr(), Password, "WRONGPASS"},
		"may not":            {"redis://" + refusing["may not"], Permission, "NOPERM"},
		"has no scripts":     {"redis://" + refusing["unknown"], Permission, "command"},
		"is a node":          {"redis://" + refusing["node"], Cluster, "node of a cluster"},
		"is a replica":       {"redis://" + refusing["replica"], Refused, "READONLY"},
		"is loading":         {"redis://" + refusing["loading"], Refused, "LOADING"},
		"has its own error":  {"redis://" + refusing["odd"], Refused, "with an error"},
		"repeats what comes": {"redis://hunter2-user:hunter2@" + echo, NoRedis, "cannot be understood"},
		"no TLS there":       {"rediss://:hunter2@" + echo, NoTLS, "does not speak TLS"},
	} {
		err := probed(t, tt.address)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		f := Explain(err)
		if f.Kind != tt.kind || !strings.Contains(f.Error(), tt.text) {
			t.Errorf("%s: kind %d, %s, want %d, %q (of %v)", name, f.Kind, f, tt.kind, tt.text, err)
		}
		if strings.Contains(strings.ToLower(f.Error()), planted) {
			t.Errorf("%s: a secret is shown: %s", name, f)
		}
	}
	for name, address := range map[string]string{"open": "redis://" + open.Addr(), "locked": "redis://hunter2-user:hunter2@" + locked.Addr(), "a database": "redis://" + readOnly.Addr() + "/3"} {
		if err := probed(t, address); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, key := range open.Keys() {
		if !strings.HasPrefix(key, keyPrefix+"probe:") || open.TTL(key) <= 0 {
			t.Errorf("the key %s was left for %v", key, open.TTL(key))
		}
	}
}

// TestProbeOfASlowStore: one that answers while connecting may wait, but not while a request may, is too slow; one that does not answer at
// all is away, and whoever is not asking any more does not call it slow.
func TestProbeOfASlowStore(t *testing.T) {
	t.Parallel()
	for slow, want := range map[time.Duration]Kind{2 * DefaultTimeout: Slow, time.Hour: Away} {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			s := open(t, p, nil)
			p.setSlow(slow)
			f := Explain(s.Probe(t.Context()))
			if f.Kind != want || want == Slow && !strings.Contains(f.Error(), "50ms") {
				t.Errorf("%s: %d %s", slow, f.Kind, f)
			}
			ctx, cancel := context.WithTimeout(t.Context(), DefaultTimeout/2)
			defer cancel()
			if f := Explain(s.Probe(ctx)); f.Kind != Away {
				t.Errorf("%s, given up: %d %s", slow, f.Kind, f)
			}
		})
	}
}

// A store that refuses the password is away: its silence is not taken for an answer that lets everybody in, and the operator is told.
func TestWrongPasswordIsALoss(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	m.RequireAuth(planted)
	seen := make(chan Event, 10)
	s, err := Open(Options{
		Redis:   &redis.UniversalOptions{Addrs: []string{m.Addr()}, Password: "another"},
		Timeout: 5 * time.Second, Observe: func(e Event) { seen <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := s.decide("a", ratelimit.Limit{RPS: 1, Burst: 1}); ok {
		t.Errorf("it decided %+v", r)
	}
	if e := <-seen; e.Err == nil || Explain(e.Err).Kind != Password {
		t.Errorf("%+v", e)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestExplain: errors that no stand-in makes.
func TestExplain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Kind{
		"ERR invalid password": Password, "ERR Client sent AUTH, but no password is set": Password, "ERR AUTH <password> called without any password": Password,
		"ERR This instance has cluster support disabled": Cluster, "OOM command not allowed": Refused,
	} {
		if f := Explain(fmt.Errorf("redis: all sentinels are unreachable: %w", answer(text))); f.Kind != want {
			t.Errorf("%s: %d %s", text, f.Kind, f)
		}
	}
	for want, err := range map[Kind]error{
		Certificate: &tls.CertificateVerificationError{Err: errors.New("x509: certificate signed by unknown authority")},
		NoRedis:     errors.New("redis: can't parse hunter2"), Away: io.EOF,
	} {
		if f := Explain(err); f.Kind != want || strings.Contains(f.Error(), planted) {
			t.Errorf("%v: %d %s", err, f.Kind, f)
		}
	}
	for _, err := range []error{errTimeout, errBusy, errClosed, redis.ErrPoolTimeout, &net.DNSError{Err: "no such host", Name: "redis.internal"}} {
		if f := Explain(err); f.Kind != Away || f.Error() == "" {
			t.Errorf("%v: %d %s", err, f.Kind, f)
		}
	}
	if f := Explain(&net.OpError{Op: "remote error", Err: tls.AlertError(42)}); f.Kind != Certificate {
		t.Errorf("%d %s", f.Kind, f)
	}
}

// answer is an error that a Redis answers with.
type answer string

func (a answer) Error() string { return string(a) }

// RedisError implements redis.Error.
func (answer) RedisError() {}
