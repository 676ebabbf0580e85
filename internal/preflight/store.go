package preflight

import (
	"context"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/sharedlimit"
)

// Store is where a site's requests are counted together with those at other edges.
type Store struct {
	Host  string                          // without what is secret in the address
	Probe func(ctx context.Context) error // connects and counts once, for nobody; its error is for [sharedlimit.Explain]
}

// fixStore says what to do about each kind of failure.
var fixStore = map[sharedlimit.Kind]string{
	sharedlimit.Away: "Check the host and port, and that this machine reaches them. If only TLS is spoken there, the address begins with rediss://; if not, with redis://.",
	sharedlimit.Slow: "Set a longer `timeout` in `rate_limit redis`, which is also the longest that a request can be held up, or a store that is closer.",
	sharedlimit.Password: "Correct the user and the password in the address, and those for sentinels (sentinel_username, sentinel_password). " +
		"Write the password as {env.NAME} or {file.PATH}, or percent-encoded.",
	sharedlimit.Permission:  "Let the user run scripts: `ACL SETUSER <user> ~caddy-tinybird:* +evalsha +eval +get +set +time`; `+cluster|slots +command` too for a cluster, `+select` for a database.",
	sharedlimit.NoTLS:       "Write the address as redis://, or name the port on which the store speaks TLS.",
	sharedlimit.Certificate: "Name the authority of the store's certificate with `ca`, use the host name that the certificate is for, and give a `client_certificate` if the store wants one.",
	sharedlimit.Cluster:     "Add cluster=true to the address of a cluster, and leave it out for a single server.",
	sharedlimit.Refused:     "Look at the log of the store.",
	sharedlimit.NoRedis:     "Check the host and port. If only TLS is spoken there, the address begins with rediss://.",
}

// store asks the store what requests will ask it. Without it requests are answered all the same, so a failure is a warning.
func (r *run) store(ctx context.Context, s *Store) {
	if s == nil {
		return
	}
	if r.o.Offline {
		r.skip(CheckSharedLimit, s.Host, offline)
		return
	}
	r.o.Step("the store of the rate limit at " + s.Host)
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if err := s.Probe(ctx); err != nil {
		f := sharedlimit.Explain(err)
		r.warn(CheckSharedLimit, s.Host, f.Error()+"; until it can be used each edge counts for itself", fixStore[f.Kind])
		return
	}
	r.pass(CheckSharedLimit, s.Host, "counts, within the timeout")
}
