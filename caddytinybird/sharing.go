package caddytinybird

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/share"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// maxSharedBody is the largest body of a question, in bytes, whose answer is shared.
const maxSharedBody = 64 << 10

// sharing answers the identical questions of a tenant with one answer, for the pipes that have a `cache`. It belongs to one
// config: after a reload nothing is left of it that a changed config would have answered otherwise.
type sharing struct {
	store     *share.Store
	ttl       map[string]time.Duration // by pipe
	api       string
	workspace string
}

// provisionSharing prepares it, if a pipe asks for it.
func (h *Handler) provisionSharing(api, workspace string) error {
	s := &sharing{ttl: make(map[string]time.Duration), api: api, workspace: workspace}
	for i := range h.Pipes {
		p := &h.Pipes[i]
		if p.Cache == 0 {
			continue
		}
		if err := checkCache(p.Cache); err != nil {
			return err
		}
		for _, name := range p.Names {
			s.ttl[name] = time.Duration(p.Cache)
		}
	}
	if len(s.ttl) == 0 {
		return nil
	}
	var o share.Options
	if l := h.Limits; l != nil {
		if err := l.checkCache(); err != nil {
			return err
		}
		o = share.Options{Entries: l.CacheEntries, Size: l.CacheSize, EntrySize: l.CacheEntrySize}
	}
	var err error
	if s.store, err = share.New(o); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	h.sharing = s
	return nil
}

// checkCache holds the rule for how long an answer may be shared.
func checkCache(ttl caddy.Duration) error {
	switch {
	case time.Duration(ttl) < share.MinTTL:
		return fmt.Errorf("cache %s is too short; use at least %s", time.Duration(ttl), share.MinTTL)
	case time.Duration(ttl) > share.MaxTTL:
		return fmt.Errorf("cache %s is too long; use at most %s", time.Duration(ttl), share.MaxTTL)
	}
	return nil
}

// checkCache holds that one answer fits where all have to.
func (l *Limits) checkCache() error {
	size := l.CacheSize
	if size == 0 {
		size = share.DefaultSize
	}
	if l.CacheEntrySize > size {
		return fmt.Errorf("limits: cache_entry_size %d is more than cache_size %d, so the largest answers could not be kept; lower the one or raise the other", l.CacheEntrySize, size)
	}
	return nil
}

// of returns for how long answers of the pipe are shared, 0 for not at all.
func (s *sharing) of(pipe string) time.Duration {
	if s == nil {
		return 0
	}
	return s.ttl[pipe]
}

// close forgets all answers.
func (s *sharing) close() {
	if s != nil {
		s.store.Close()
	}
}

// asked is a question that may go to Tinybird.
type asked struct {
	grant    *tinybird.Grant
	question tinybird.Question
	rps      int // as the token has it; 0: no limit
	token    string
	places   int // how many the tenant may have under way; 0: any number
}

// mint returns a token that is good now.
func (h *Handler) mint(grant *tinybird.Grant, rps int) (string, error) {
	token, _, err := h.minter.Mint(grant, rps)
	if err != nil {
		return "", cannotMint(err)
	}
	return token, nil
}

// renew sees that the token is good for use, after a wait that may have been longer than its life.
func (h *Handler) renew(a *asked) (err error) {
	a.token, err = h.mint(a.grant, a.rps)
	return err
}

// renewing returns what mints the question's token when there is a connection for it; nil where none waits for one.
func (h *Handler) renewing(grant *tinybird.Grant, rps int) func() (string, error) {
	if h.direct != nil {
		return nil
	}
	return func() (string, error) { return h.mint(grant, rps) }
}

// share answers the request with an answer that others have, too. It reports false if the request has to be forwarded by itself.
// The tenant was authorized and counted before.
func (h *Handler) share(w http.ResponseWriter, r *http.Request, x *exchange, a *asked) (answered bool, err error) {
	grant, question := a.grant, a.question
	ttl := h.sharing.of(grant.Pipe)
	if ttl == 0 {
		return false, nil
	}
	key, why := h.sharing.key(r, grant, question)
	if why != "" {
		share.SetBypass(w.Header(), why)
		h.shared(x, share.Bypass)
		return false, nil
	}
	up := forward.Request{
		Method:   question.Method,
		Path:     question.Path,
		RawQuery: question.RawQuery,
		Body:     question.Body,
		Client:   sharedHeader(r.Header, key.Encoding),
		Renew:    h.renewing(grant, a.rps),
	}
	places, rps := a.places, a.rps
	out, err := h.sharing.store.Serve(r.Context(), w, share.Request{
		Key:    key,
		TTL:    ttl,
		Client: r.Header,
		Fetch: func(ctx context.Context, w http.ResponseWriter) (forward.Outcome, error) {
			place, err := h.enter(w.Header(), grant.Pipe, grant.Gate, places)
			if err != nil {
				return forward.Outcome{}, err
			}
			defer place.Leave()
			asking := up
			if asking.Token, err = h.mint(grant, rps); err != nil { // the request may have waited for another fetch before
				return forward.Outcome{}, err
			}
			return h.forwarder.Forward(ownContext(ctx), w, asking)
		},
		Refreshed: func(out forward.Outcome, err error) { h.refreshed(grant.Pipe, out, err) },
	})
	x.outcome = out.Upstream
	h.shared(x, out.Result)
	if out.Result == share.Bypass { // perhaps after it had waited for an answer that is not shared
		return false, h.renew(a)
	}
	return true, err
}

// key returns what the answer to the question is known by, or why it is not shared.
func (s *sharing) key(r *http.Request, grant *tinybird.Grant, question tinybird.Question) (key share.Key, why string) {
	if len(question.Body) > maxSharedBody {
		return key, share.DetailBody
	}
	if question.Method != http.MethodGet && share.Conditional(r.Header) {
		return key, share.DetailConditional
	}
	encoding, ok := share.EncodingFor(r.Header)
	if !ok {
		return key, share.DetailEncoding
	}
	fingerprint, ok := tinybird.FingerprintOf(s.api, s.workspace, grant, &question)
	if !ok {
		return key, share.DetailParameter
	}
	return share.Key{Question: fingerprint, Encoding: encoding}, ""
}

// sharedHeader is what goes up for all who share an answer. Nothing in it but the encoding could change the answer: the
// trace is the one of the client that happened to come first.
func sharedHeader(client http.Header, encoding share.Encoding) http.Header {
	h := http.Header{
		"Accept":          {"*/*"},
		"Accept-Encoding": {string(encoding)},
		"User-Agent":      {"caddy-tinybird"},
	}
	for _, name := range [...]string{"Traceparent", "Tracestate"} {
		if v := client[name]; len(v) > 0 {
			h[name] = []string{v[0]} // the client's own may be changed when its request is over
		}
	}
	return h
}

// ownContext gives a request to Tinybird, which may outlive the one that it came with, what Caddy's transport looks for in a
// request's context.
func ownContext(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, caddy.NewReplacer())
	return context.WithValue(ctx, caddyhttp.VarsCtxKey, make(map[string]any))
}

// refreshed tells the operator about a request to Tinybird that no client waited for.
func (h *Handler) refreshed(pipe string, out forward.Outcome, err error) {
	if out.Duration != 0 {
		h.of(pipe).answered(out.UpstreamStatus, out.Duration)
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if c := h.log.Check(zap.WarnLevel, "an answer was not refreshed"); c != nil {
		fields := []zap.Field{zap.String("pipe", pipe), zap.Error(err), zap.Int("upstream_status", out.UpstreamStatus)}
		if refusal := (*apierr.Error)(nil); errors.As(err, &refusal) && refusal.NeedsHelp() {
			fields = append(fields, helpField(refusal))
		}
		c.Write(fields...)
	}
}

// shared takes note of what became of a request for a pipe that has a `cache`.
func (h *Handler) shared(x *exchange, result share.Result) {
	x.cache = string(result)
	h.of(x.pipe).cache.of(x.cache).Inc()
	if x.span != nil {
		x.span.SetAttributes(attribute.String("tinybird.cache", x.cache))
	}
}
