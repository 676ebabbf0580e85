package caddytinybird

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// badDisk is a storage of Caddy whose disk is full, or cannot be read or written.
type badDisk struct {
	certmagic.FileStorage

	mu         sync.Mutex
	load, save error
	asked      chan struct{} // gets a value with each attempt to save
}

func (d *badDisk) set(load, save error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load, d.save = load, save
}

func (d *badDisk) Load(ctx context.Context, key string) ([]byte, error) {
	d.mu.Lock()
	err := d.load
	d.mu.Unlock()
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: key, Err: err}
	}
	return d.FileStorage.Load(ctx, key)
}

func (d *badDisk) Store(ctx context.Context, key string, value []byte) error {
	d.mu.Lock()
	err := d.save
	d.mu.Unlock()
	defer func() {
		select {
		case d.asked <- struct{}{}:
		default:
		}
	}()
	if err != nil {
		return &fs.PathError{Op: "open", Path: key, Err: err}
	}
	return d.FileStorage.Store(ctx, key, value)
}

// TestStorageFaults: a storage that is full, read-only or broken costs the keys' life over a restart, and nothing else. The log says
// that it is the storage, and the keys are saved once it is well.
func TestStorageFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ load, save error }{
		"full":       {nil, syscall.ENOSPC},
		"read-only":  {nil, syscall.EROFS},
		"no rights":  {syscall.EACCES, syscall.EACCES},
		"broken":     {syscall.EIO, syscall.EIO},
		"not a disk": {syscall.ENOTDIR, syscall.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stack := newStack(t, devstack.Options{})
			disk := &badDisk{FileStorage: certmagic.FileStorage{Path: t.TempDir()}, asked: make(chan struct{}, 1)}
			disk.set(tt.load, tt.save)
			e := newEdge(t, stack, nil)
			set := keySetAt(t, stack.Issuer.JWKSURL())
			core, logged := observer.New(zap.WarnLevel)
			set.use(keySetUser{log: zap.New(core), storage: disk})
			<-disk.asked
			onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
			onlyTenant(t, e.get(t, "cleo", liveEvents), "globex")
			await(t, "the failure is logged", func() bool { return logged.Len() > 0 })
			line := logged.All()[0]
			cause, _ := line.ContextMap()["error"].(string)
			if !strings.Contains(line.Message, "storage") || !strings.Contains(cause, tt.save.Error()) {
				t.Errorf("logged %q, %v", line.Message, line.ContextMap())
			}
			// The next attempt comes by itself after ten seconds (internal/jwks), or with a reload.
			disk.set(nil, nil)
			set.Persist()
			awaitSaved(t, disk.Path, stack.Issuer)
		})
	}
}

// TestStorageFaultsFromTheStart: an edge whose storage cannot be read starts, and gets the keys from Clerk.
func TestStorageFaultsFromTheStart(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	file := secretFile(t, "a file where there should be a directory")
	file = strings.TrimSuffix(strings.TrimPrefix(file, "{file."), "}")
	e := newEdgeIn(t, stack, filepath.Join(file, "storage"), nil)
	onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
}

// keySetAt returns the key set of that address.
func keySetAt(t *testing.T, url string) *keySet {
	t.Helper()
	var found *keySet
	keySets.Range(func(_, value any) bool {
		if s, ok := value.(*keySet); ok && s.url == url {
			found = s
		}
		return true
	})
	if found == nil {
		t.Fatal("no key set")
	}
	return found
}

// nameService is a DNS server that can lose its names.
type nameService struct {
	addr string
	mode atomic.Int32
}

const (
	namesKnown int32 = iota
	namesGone
	namesBroken
	namesSilent
)

func newNameService(t *testing.T) *nameService {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameService{addr: c.LocalAddr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			size, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := n.answer(buf[:size]); out != nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return n
}

func (n *nameService) answer(query []byte) []byte {
	var m dnsmessage.Message
	mode := n.mode.Load()
	if mode == namesSilent || m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	switch q := m.Questions[0]; {
	case mode == namesGone:
		m.RCode = dnsmessage.RCodeNameError
	case mode == namesBroken:
		m.RCode = dnsmessage.RCodeServerFailure
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// TestNameOfTinybirdIsGone: while the name does not resolve, connections that there are go on to be used, and without one the client
// gets 502 in no more than the time to connect; the log has the name. When the name is back, so is the edge.
func TestNameOfTinybirdIsGone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		mode  int32
		cause string
	}{
		"no such name": {namesGone, "no such host"},
		"no server":    {namesBroken, "server misbehaving"},
		"silence":      {namesSilent, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dns := newNameService(t)
			stack := newStack(t, devstack.Options{})
			w := newWay(t, stack.APIURL)
			_, port, err := net.SplitHostPort(w.addr)
			if err != nil {
				t.Fatal(err)
			}
			e := newEdge(t, stack, func(h *Handler) {
				h.Upstream = "http://tinybird.internal:" + port
				h.TransportRaw = json.RawMessage(fmt.Sprintf(`{"protocol":"http","dial_timeout":"1s","resolver":{"addresses":["udp/%s"]}}`, dns.addr))
			})
			core, logged := observer.New(zap.ErrorLevel)
			e.log = zap.New(core)
			onlyTenant(t, e.get(t, "ada", liveEvents), "acme")

			dns.mode.Store(tt.mode)
			onlyTenant(t, e.get(t, "cleo", liveEvents), "globex")
			w.instead(nil) // which ends the connections
			w.awaitNone(t)
			if got := e.get(t, "ada", liveEvents); got.StatusCode != 502 || got.code(t) != "upstream_unreachable" {
				t.Errorf("status %d: %s", got.StatusCode, got.body)
			}
			if lines := logged.All(); len(lines) != 1 || !strings.Contains(errorOf(lines[0]), tt.cause) || !strings.Contains(errorOf(lines[0]), "tinybird.internal") {
				t.Errorf("logged %v", lines)
			}
			dns.mode.Store(namesKnown)
			onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
		})
	}
}

// TestClockIsWrong: an edge whose clock is an hour off refuses sessions that look over or not yet begun, serves nobody else's rows, and
// is well as soon as the clock is. It is the clocks of Clerk and of Tinybird that the test moves: what counts is the difference.
func TestClockIsWrong(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		others time.Duration
		code   string
	}{
		"an hour ahead":  {-time.Hour, "token_expired"},
		"an hour behind": {time.Hour, "token_not_yet_valid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var off atomic.Int64
			now := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
			stack := newStack(t, devstack.Options{Issuer: devstack.IssuerOptions{Now: now}, API: devstack.APIOptions{Now: now}})
			e := newEdge(t, stack, nil)
			core, logged := observer.New(zap.ErrorLevel)
			e.log = zap.New(core)
			early := e.request(t, "cleo", http.MethodGet, liveEvents, nil)
			onlyTenant(t, e.do(t, early), "globex")

			off.Store(int64(tt.others))
			if got := e.get(t, "ada", liveEvents); got.StatusCode != 401 || got.code(t) != tt.code {
				t.Errorf("status %d: %s", got.StatusCode, got.body)
			}
			// A session from before is good by the edge's clock. The token that is minted for it is over by Tinybird's if the edge is behind.
			got := e.do(t, early)
			if tt.others < 0 {
				onlyTenant(t, got, "globex")
			} else if got.StatusCode != 403 || got.code(t) != "upstream_refused" || logged.Len() != 1 {
				t.Errorf("status %d: %s; logged %v", got.StatusCode, got.body, logged.All())
			}
			off.Store(0)
			onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
			onlyTenant(t, e.do(t, early), "globex")
		})
	}
}

// Interface guard.
var _ certmagic.Storage = (*badDisk)(nil)
