package caddytinybird

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/inspect"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// judge finds out what the sites of a config would make of a token, by the code that decides about requests.
type judge struct {
	ctx    caddy.Context
	flags  *inspectFlags
	step   func(what string)
	sets   map[string]*jwks.Fetched // by address
	known  inspect.Known
	courts []*court
}

// court is one site that decides.
type court struct {
	site     *configuredSite
	verifier *clerk.Verifier
	err      error // why it cannot decide
}

func newJudge(ctx caddy.Context, f *inspectFlags) *judge {
	return &judge{ctx: ctx, flags: f, step: func(string) {}, sets: map[string]*jwks.Fetched{}, known: inspect.Known{Configured: true, Now: time.Now()}}
}

// prepare learns from a site what the token may be checked with.
func (j *judge) prepare(s *configuredSite) {
	c := &court{site: s}
	j.courts = append(j.courts, c)
	if err := j.sessions(c); err != nil {
		c.err = hideSecret(err)
	}
	if s.handler == nil {
		return
	}
	if err := j.pipes(c); err != nil && c.err == nil {
		c.err = hideSecret(err)
	}
}

// sessions prepares what verifies sessions.
func (j *judge) sessions(c *court) error {
	settings, err := c.site.resolvedClerk(caddy.Log())
	if err != nil {
		return err
	}
	j.secret(settings.secretKey, "the secret key of "+c.site.name(), false)
	j.secret(settings.publishableKey, "the publishable key of "+c.site.name(), false)
	issuers, err := settings.keySets(func(url string) (clerk.KeySet, error) { return j.keysAt(url), nil })
	if err != nil {
		return err
	}
	if settings.JWTKey != "" {
		j.pinned(issuers[0].Keys)
	}
	c.verifier, err = clerk.New(settings.verifierConfig(issuers))
	return err
}

// keysAt fetches a key set, once.
func (j *judge) keysAt(url string) *jwks.Fetched {
	if f, ok := j.sets[url]; ok {
		return f
	}
	f, err := jwks.Absent(errOffline), errOffline
	printed := jwks.PrintableURL(url)
	if !j.flags.offline {
		j.step("the keys at " + printed)
		ctx, cancel := context.WithTimeout(j.ctx, j.flags.timeout)
		f, err = jwks.Fetch(ctx, jwks.Options{URL: url})
		cancel()
	}
	if err != nil {
		j.known.NoKeys = tinybird.Printable(fmt.Sprintf("the keys at %s were not had: %v", printed, err))
	}
	for _, k := range f.Keys {
		if pub, ok := k.Key().(*rsa.PublicKey); ok {
			j.known.Keys = append(j.known.Keys, inspect.Key{ID: k.Marshal().KID, Public: pub, From: printed})
		}
	}
	j.sets[url] = f
	return f
}

var errOffline = errors.New("not asked (--offline)")

// pinned takes note of the key of jwt_key.
func (j *judge) pinned(keys clerk.KeySet) {
	if k, ok := keys.Peek(""); ok {
		if pub, ok := k.Key().(*rsa.PublicKey); ok {
			j.known.Keys = append(j.known.Keys, inspect.Key{Public: pub, From: "jwt_key"})
		}
	}
}

// pipes prepares what decides about pipes.
func (j *judge) pipes(c *court) error {
	s := c.site
	b, err := s.workbench(j.ctx, caddy.Log())
	if err != nil {
		return err
	}
	j.secret(string(b.key.Bytes), "the signing key of "+s.name(), true)
	if s.handler.AcceptTemplateTokens {
		s.handler.templateKey, s.handler.workspaceID = b.key.Bytes, b.workspace
	}
	if err := s.handler.provisionEvents(); err != nil {
		return err
	}
	if s.handler.ingest != nil {
		for _, e := range s.handler.ingest.Describe() {
			j.secret(e.Token, "the append_token of events "+e.Name+" of "+s.name(), false)
		}
	}
	return nil
}

func (j *judge) secret(value, name string, signs bool) {
	if value != "" {
		j.known.Secrets = append(j.known.Secrets, inspect.Secret{Value: value, Name: name, Signs: signs})
	}
}

// verdict shows the token to the site as a client does that sends it in the Authorization header.
func (c *court) verdict(ctx context.Context, token string) inspect.Verdict {
	v := inspect.Verdict{Hosts: c.site.hosts, Directive: Handler{}.CaddyModule().ID.Name()}
	if v.Hosts == nil {
		v.Hosts = []string{}
	}
	if c.site.handler == nil {
		v.Directive = ClerkAuth{}.CaddyModule().ID.Name()
	}
	if c.err != nil {
		v.Unclear = c.err.Error()
		return v
	}
	refusal := c.judge(ctx, token, &v)
	switch {
	case refusal == nil:
		v.Accepted = true
	case refusal.Code == apierr.KeysUnavailable:
		v.Unclear = "the keys by which sessions are verified were not had"
	default:
		v.Refusal = shownRefusal(refusal)
	}
	return v
}

// judge lets the code that decides about requests decide about one. It returns the refusal of the token itself.
func (c *court) judge(ctx context.Context, token string, v *inspect.Verdict) *apierr.Error {
	defer c.verifier.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/", http.NoBody)
	if err != nil {
		return refusalOf(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	who := new(visitor)
	if c.site.auth != nil {
		if who.identity, err = c.verifier.Authenticate(r); err != nil { //nolint:contextcheck // it takes the request, and with it its context
			return refusalOf(err)
		}
		if refusal := unmet(c.site.auth.Require, who.identity); refusal != nil {
			return refusal
		}
		who.decided = true
	}
	h := c.site.handler
	if h == nil {
		return nil
	}
	h.verifier = c.verifier
	pipes := h.policy.Describe()
	if len(pipes) == 0 {
		_, err := h.identify(r, who) //nolint:contextcheck // as above
		return refusalOf(err)
	}
	for _, p := range pipes {
		_, err := h.authorize(r, &exchange{visitor: who, pipe: p.Name}, p.Name, p.Formats[0]) //nolint:contextcheck // as above
		refusal := refusalOf(err)
		if refusal != nil && refusal.Status != http.StatusForbidden {
			return refusal
		}
		v.Pipes = append(v.Pipes, inspect.PipeVerdict{Pipe: p.Name, Refusal: shownRefusal(refusal)})
	}
	return nil
}
