//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// load is traffic on kept connections from several clients at once. Every attempt has a number that the edge's access
// log and the API see, so that an attempt without an answer can be told from one that Caddy had accepted.
type load struct {
	e        *edge
	users    []string
	tokens   []string
	attempts atomic.Int64
	answered atomic.Int64
	halt     chan struct{}
	done     sync.WaitGroup

	mu         sync.Mutex
	unanswered []string // attempts that no byte came back for
	failures   []string
}

// errUnanswered: the connection ended before the first byte of an answer.
var errUnanswered = errors.New("no byte of an answer")

// startLoad begins with clients; end ends it.
func startLoad(t *testing.T, e *edge, clients int) *load {
	t.Helper()
	l := &load{e: e, users: []string{"ada", "cleo"}, halt: make(chan struct{})}
	for _, user := range l.users {
		l.tokens = append(l.tokens, e.token(t, user, devstack.Lifetime(time.Hour)))
	}
	for n := range clients {
		l.done.Go(func() { l.client(n) })
	}
	return l
}

// end waits for the running requests.
func (l *load) end() {
	close(l.halt)
	l.done.Wait()
}

// client asks until the end, on one connection for as long as that is kept.
func (l *load) client(n int) {
	var c *client
	defer func() { c.close() }()
	for {
		select {
		case <-l.halt:
			return
		default:
		}
		id := fmt.Sprintf("attempt_%d", l.attempts.Add(1))
		var err error
		if c == nil {
			c, err = dial(l.e.addr)
		}
		var got reply
		user := n % len(l.users)
		if err == nil {
			got, err = c.get(l.e.addr, "/v0/pipes/live_events.json?limit=2&attempt="+id, l.tokens[user])
		}
		switch {
		case errors.Is(err, errUnanswered):
			l.mu.Lock()
			l.unanswered = append(l.unanswered, id)
			l.mu.Unlock()
		case err != nil:
			l.fail(id, err)
		case got.StatusCode != http.StatusOK || !bytes.Contains(got.body, []byte([]string{"/acme/", "/globex/"}[user])):
			l.fail(id, fmt.Errorf("status %d: %s", got.StatusCode, got.body))
		default:
			l.answered.Add(1)
		}
		if err != nil || got.Close {
			c.close()
			c = nil
		}
	}
}

func (l *load) fail(id string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, id+": "+err.Error())
}

// client is a connection whose requests are repeated by nobody: net/http's client would do so on its own.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(addr string) (*client, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil, errors.Join(errUnanswered, err)
	}
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn)}, nil
}

func (c *client) close() {
	if c != nil {
		c.conn.Close()
	}
}

func (c *client) get(host, target, token string) (reply, error) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	return c.wait(host, target, token)
}

// wait is get for an answer that may take longer.
func (c *client) wait(host, target, token string) (reply, error) {
	_, werr := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", target, host, token)
	if _, err := c.r.Peek(1); err != nil {
		if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
			return reply{}, err
		}
		return reply{}, errors.Join(errUnanswered, werr, err)
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{resp, body}, err
}

// getNow asks right after a reload. Caddy closes its old listener then, and with it the connections that it had not
// accepted yet: these are made anew.
func (e *edge) getNow(t *testing.T, user, target string) (got reply) {
	t.Helper()
	eventually(t, "an answer", func() bool {
		c, err := dial(e.addr)
		defer c.close()
		if err == nil {
			got, err = c.get(e.addr, target, e.token(t, user))
		}
		if err != nil && !errors.Is(err, errUnanswered) {
			t.Fatal(err)
		}
		return err == nil
	})
	return got
}
