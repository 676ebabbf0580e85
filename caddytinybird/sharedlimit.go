package caddytinybird

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/sharedlimit"
)

// SharedLimit says where the requests of tenants are counted together with those at other edges.
type SharedLimit struct {
	// The address of a Redis (5 or later) or Valkey: `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS. With
	// `?master_name=<name>` the host is a sentinel, and with `?cluster=true` a node of a cluster; `&addr=<host>:<port>` names
	// further ones. Sentinels that want a password: `&sentinel_username=` and `&sentinel_password=`. All of it or a part may be `{env.*}`
	// or `{file.*}`; a password should be. Required.
	URL string `json:"url"`

	// How long a request waits for an answer, from 1ms to 5s. One that gets none in time is decided by this edge's own count, and
	// so are those after it until the store answers again. Default: 50ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// PEM files with the certificate authorities that the store's certificate may come from. Default: the system's.
	CA []string `json:"ca,omitempty"`

	// A PEM file with a certificate of this edge, for a store that asks for one. It is read when the config loads, and takes a
	// `client_key` beside it. Default: none.
	ClientCertificate string `json:"client_certificate,omitempty"`

	// The PEM file with the key of `client_certificate`. Default: none.
	ClientKey string `json:"client_key,omitempty"`
}

// The bounds of SharedLimit.Timeout.
const minStoreTimeout, maxStoreTimeout = time.Millisecond, 5 * time.Second

var (
	errNothingShared = errors.New("rate_limit redis counts nothing without a rate; add `rate_limit <rps>` beside it, or in a pipe")
	errNeedsTLS      = errors.New("ca and client_certificate are for TLS; write the address as rediss://host:6379")
)

// requestCounter counts a request of a tenant and decides about it: in this process, or together with other edges.
type requestCounter interface {
	Allow(key string, lim ratelimit.Limit) (ratelimit.Result, error)
}

// sharedStores holds one client for each address and its settings, for all configs of this process: a reload keeps the
// connections, and handlers with the same address share them.
var sharedStores = caddy.NewUsagePool()

// sharedStore is a store with the configs that use it. Each brings its own logger, and may be rejected after it was provisioned,
// so the store logs to that of the newest one that is still there.
type sharedStore struct {
	*sharedlimit.Store

	host string

	users users[*zap.Logger]

	mu    sync.Mutex
	away  error     // why the store is not in use; nil while it is
	since time.Time // when it was lost
}

// Destruct ends the connections when no config uses them any more.
func (s *sharedStore) Destruct() error {
	if s.Store == nil {
		return nil
	}
	return s.Close()
}

// up is 1 while the store is in use.
func (s *sharedStore) up() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return 0
	}
	return 1
}

func (s *sharedStore) status() sharedLimitStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away == nil {
		return sharedLimitStatus{Host: s.host, Up: true}
	}
	return sharedLimitStatus{Host: s.host, AwaySince: timeOf(s.since), LastError: hideSecret(sharedlimit.Explain(s.away)).Error()}
}

// observe tells the operator about each change, once.
func (s *sharedStore) observe(e sharedlimit.Event) {
	s.mu.Lock()
	s.away, s.since = e.Err, time.Now()
	s.mu.Unlock()
	log := s.users.newest()
	if e.Err != nil {
		log.Warn("the shared rate limit's store is lost; this edge counts for itself until it is back", zap.String("store", s.host), zap.Error(sharedlimit.Explain(e.Err)))
		return
	}
	log.Info("the shared rate limit's store is back", zap.String("store", s.host), zap.Duration("away", e.Down))
}

// provisionSharedLimit has the requests counted in a store if there is one. It does not connect.
func (h *Handler) provisionSharedLimit(workspace string) error {
	c := h.RateLimitRedis
	if c == nil {
		return nil
	}
	if !h.hasRate() {
		return errNothingShared
	}
	address, certificates, err := c.connection(h.log)
	if err != nil {
		return fmt.Errorf("rate_limit redis: %w", err)
	}
	key, err := c.poolKey(address.Redis, certificates)
	if err != nil {
		return fmt.Errorf("rate_limit redis: %w", err)
	}
	s, err := h.acquireStore(key, address, time.Duration(c.Timeout))
	if err != nil {
		return fmt.Errorf("rate_limit redis: %w", err)
	}
	h.counter = sharedlimit.NewLimiter(s.Store, h.limiter.Limiter, workspace)
	return nil
}

// hasRate reports whether anything is limited at all.
func (h *Handler) hasRate() bool {
	return h.RateLimit != nil || slices.ContainsFunc(h.Pipes, func(p Pipe) bool { return p.RateLimit != nil })
}

// acquireStore takes the store. After it was given back, requests of the old config may still be counted; without the store this edge
// counts them.
func (h *Handler) acquireStore(key string, address *sharedlimit.Address, timeout time.Duration) (*sharedStore, error) {
	s, release, err := acquire(sharedStores, key, func() (*sharedStore, error) {
		routeRedisLog()
		s := &sharedStore{host: address.Host}
		var err error
		s.Store, err = sharedlimit.Open(sharedlimit.Options{Redis: address.Redis, Timeout: timeout, Observe: s.observe, Decided: metrics.counted})
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	h.store = s
	leave := s.users.use(h.log)
	h.held = append(h.held, func() error {
		leave()
		return release()
	})
	return s, nil
}

// connection is all that it takes to connect, with what was read from files for it.
func (c *SharedLimit) connection(log *zap.Logger) (*sharedlimit.Address, []byte, error) {
	address, err := c.resolve()
	if err != nil {
		return nil, nil, err
	}
	if address.Literal {
		log.Warn(literalSecret,
			zap.String("setting", "rate_limit redis"), zap.String("fix", "write the password as {env.NAME} or {file.PATH}; {$NAME} is substituted into the config too"))
	}
	certificates, err := c.certificates(address.Redis)
	return address, certificates, err
}

// preflight is what there is to check about the store.
func (c *SharedLimit) preflight(log *zap.Logger) (*preflight.Store, error) {
	address, _, err := c.connection(log)
	if err != nil {
		return nil, fmt.Errorf("rate_limit redis: %w", err)
	}
	return &preflight.Store{Host: address.Host, Probe: func(ctx context.Context) error {
		routeRedisLog()
		s, err := sharedlimit.Open(sharedlimit.Options{Redis: address.Redis, Timeout: time.Duration(c.Timeout)})
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		return s.Probe(ctx)
	}}, nil
}

// resolve reads the address with its placeholders, and checks the rest. No error shows anything of the address.
func (c *SharedLimit) resolve() (*sharedlimit.Address, error) {
	if t := time.Duration(c.Timeout); t != 0 {
		if err := checkStoreTimeout(c.Timeout); err != nil {
			return nil, err
		}
	}
	address, err := sharedlimit.ParseURL(c.URL, func(placeholder string) (string, error) {
		value, err := caddy.NewReplacer().ReplaceOrErr(placeholder, true, true)
		if err != nil {
			return "", errors.New("the variable or file that the address names is missing or empty; set it")
		}
		return value, nil
	})
	if err != nil {
		return nil, err
	}
	return address, c.check(address)
}

// check holds what needs no file and no variable.
func (c *SharedLimit) check(address *sharedlimit.Address) error {
	if (c.ClientCertificate == "") != (c.ClientKey == "") {
		return errors.New("client_certificate takes a certificate and its key")
	}
	if wants := len(c.CA) > 0 || c.ClientCertificate != ""; wants && address.Redis.TLSConfig == nil && address.Host != "" {
		return errNeedsTLS
	}
	return nil
}

func checkStoreTimeout(d caddy.Duration) error {
	if t := time.Duration(d); t < minStoreTimeout || t > maxStoreTimeout {
		return fmt.Errorf("timeout %s is out of range; a request can wait from %s to %s", t, minStoreTimeout, maxStoreTimeout)
	}
	return nil
}

// certificates reads the files for TLS into the options, and returns all that it read.
func (c *SharedLimit) certificates(o *redis.UniversalOptions) ([]byte, error) {
	var all bytes.Buffer
	read := func(setting, path string) ([]byte, error) {
		path, err := resolveText(setting, path)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(path) //nolint:gosec // the operator names it
		if err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
		all.Write(text)
		return text, nil
	}
	for _, path := range c.CA {
		text, err := read("ca", path)
		if err != nil {
			return nil, err
		}
		if o.TLSConfig.RootCAs == nil {
			o.TLSConfig.RootCAs = x509.NewCertPool()
		}
		if !o.TLSConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ca: %s holds no certificate in PEM", path)
		}
	}
	if c.ClientCertificate == "" {
		return all.Bytes(), nil
	}
	certificate, err := read("client_certificate", c.ClientCertificate)
	if err != nil {
		return nil, err
	}
	key, err := read("client_certificate", c.ClientKey)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, errors.New("client_certificate: the files do not hold a certificate and its key in PEM")
	}
	o.TLSConfig.Certificates = []tls.Certificate{pair}
	return all.Bytes(), nil
}

// poolKey is one for each way to connect. It is a digest, because passwords are in it.
func (c *SharedLimit) poolKey(o *redis.UniversalOptions, certificates []byte) (string, error) {
	text, err := json.Marshal([]any{
		o.Addrs, o.Username, o.Password, o.DB, o.IsClusterMode, o.MasterName, o.SentinelUsername, o.SentinelPassword, o.TLSConfig != nil, certificates, c.Timeout,
	})
	if err != nil {
		return "", fmt.Errorf("address: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// routeRedisLog has what the Redis client prints on its own, such as each failed attempt to connect, go to Caddy's log at debug
// level. What an operator has to know is in the lines of observe. The client has one logger for the process.
var routeRedisLog = sync.OnceFunc(func() { redis.SetLogger(redisLog{}) })

type redisLog struct{}

// Printf implements the Redis client's logger.
func (redisLog) Printf(_ context.Context, format string, args ...any) {
	if c := caddy.Log().Named("redis").Check(zap.DebugLevel, fmt.Sprintf(format, args...)); c != nil {
		c.Write()
	}
}

// Interface guards.
var (
	_ caddy.Destructor = (*sharedStore)(nil)
	_ requestCounter   = (*pooledLimiter)(nil)
	_ requestCounter   = (*sharedlimit.Limiter)(nil)
)
