package caddytinybird

import (
	"cmp"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/cachestat"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// status is the answer of the admin endpoint. Its names are part of the product's interface.
type status struct {
	KeySets  []keySetStatus  `json:"key_sets"`
	Clerk    []clerkStatus   `json:"clerk"`
	Sites    []siteStatus    `json:"sites"`
	Limiters []limiterStatus `json:"limiters"`

	SharedLimits []sharedLimitStatus `json:"shared_limits"`
}

// keySetStatus is about the keys from one address. All configs of the process that want them share them.
type keySetStatus struct {
	URL           string     `json:"url"`
	KeyIDs        []string   `json:"key_ids"`
	Skipped       int        `json:"skipped_keys"`
	Source        string     `json:"source"`
	AgeSeconds    *float64   `json:"age_seconds"`
	LastAttempt   *time.Time `json:"last_attempt"`
	NextAttempt   *time.Time `json:"next_attempt"`
	Attempts      uint64     `json:"attempts"`
	Failures      int        `json:"failures"`
	LastError     string     `json:"last_error"`
	UnknownKeyIDs int        `json:"unknown_key_ids"`
}

// clerkStatus is about a `clerk` block, and the sessions that were verified by it.
type clerkStatus struct {
	place

	Module   string      `json:"module"`
	Issuers  []string    `json:"issuers"`
	Sessions cacheStatus `json:"sessions"`
}

// siteStatus is about a `tinybird` block, and the tokens that were minted by it.
type siteStatus struct {
	place

	WorkspaceID          string         `json:"workspace_id"`
	Upstream             string         `json:"upstream"`
	Pipes                []pipeStatus   `json:"pipes"`
	Events               []eventsStatus `json:"events"`
	TokenEndpoint        string         `json:"token_endpoint"`
	AcceptTemplateTokens bool           `json:"accept_template_tokens"`
	CORS                 []string       `json:"cors"`
	TokenTTLSeconds      float64        `json:"token_ttl_seconds"`
	Tokens               cacheStatus    `json:"tokens"`
	Answers              *answersStatus `json:"answers"`
}

type pipeStatus struct {
	Name        string        `json:"name"`
	FixedParams []string      `json:"fixed_params"`
	Params      []string      `json:"params"`
	Formats     []string      `json:"formats"`
	Require     []Requirement `json:"require"`
	RateLimit   *rateStatus   `json:"rate_limit"`

	CacheSeconds float64 `json:"cache_seconds"`
}

// rateStatus is a rate as the config has it.
type rateStatus struct {
	RPS   string `json:"rps"`
	Burst int    `json:"burst"`
	Own   bool   `json:"own"`
}

type eventsStatus struct {
	Datasource string   `json:"datasource"`
	Stamps     []string `json:"stamps"`
}

type cacheStatus struct {
	Size     int      `json:"size"`
	Max      int      `json:"max"`
	Hits     uint64   `json:"hits"`
	Misses   uint64   `json:"misses"`
	HitRatio *float64 `json:"hit_ratio"`
}

// answersStatus is about the answers that are shared.
type answersStatus struct {
	cacheStatus

	Bytes    int64 `json:"bytes"`
	MaxBytes int64 `json:"max_bytes"`
}

// limiterStatus is about the counters of a workspace. All configs of the process count there.
type limiterStatus struct {
	WorkspaceID string `json:"workspace_id"`
	Counters    int    `json:"counters"`
	MaxCounters int    `json:"max_counters"`
	Evicted     uint64 `json:"evicted"`
}

// sharedLimitStatus is about a store of `rate_limit redis`. All configs of the process that have its address and settings share it.
type sharedLimitStatus struct {
	Host      string     `json:"host"`
	Up        bool       `json:"up"`
	AwaySince *time.Time `json:"away_since"`
	LastError string     `json:"last_error"`
}

// statusOf describes a config that is running.
func statusOf(ctx caddy.Context) status {
	modules, places := modulesOf(ctx.GetMetricsRegistry()), placesOf(ctx)
	s := status{
		KeySets:  keySetStatuses(time.Now()),
		Clerk:    make([]clerkStatus, 0, len(modules.clerks)),
		Sites:    make([]siteStatus, 0, len(modules.handlers)),
		Limiters: limiterStatuses(),

		SharedLimits: sharedLimitStatuses(),
	}
	for _, c := range modules.clerks {
		s.Clerk = append(s.Clerk, clerkStatus{
			place: places.of(c.Clerk), Module: c.module, Issuers: c.issuers, Sessions: newCacheStatus(c.verifier.CacheStats()),
		})
	}
	for _, h := range modules.handlers {
		s.Sites = append(s.Sites, h.status(places.of(h)))
	}
	slices.SortStableFunc(s.Clerk, func(a, b clerkStatus) int { return a.compare(b.place) })
	slices.SortStableFunc(s.Sites, func(a, b siteStatus) int { return a.compare(b.place) })
	return s
}

func (h *Handler) status(at place) siteStatus {
	s := siteStatus{
		place:                at,
		WorkspaceID:          h.workspaceID,
		Upstream:             h.upstreamHost,
		Pipes:                []pipeStatus{},
		Events:               []eventsStatus{},
		TokenEndpoint:        h.TokenEndpoint,
		AcceptTemplateTokens: h.AcceptTemplateTokens,
		CORS:                 listOf(h.CORS),
		TokenTTLSeconds:      h.minter.TTL().Seconds(),
		Tokens:               newCacheStatus(h.minter.CacheStats()),
	}
	for _, info := range h.policy.Describe() {
		p := newPipeStatus(info)
		p.CacheSeconds = h.sharing.of(info.Name).Seconds()
		s.Pipes = append(s.Pipes, p)
	}
	if h.sharing != nil {
		answers := h.sharing.store.Stats()
		s.Answers = &answersStatus{newCacheStatus(answers.Stats), answers.Bytes, answers.MaxBytes}
	}
	for _, info := range h.ingest.Describe() {
		s.Events = append(s.Events, eventsStatus{info.Name, listOf(info.Fields)})
	}
	return s
}

func newPipeStatus(info tinybird.PipeInfo) pipeStatus {
	p := pipeStatus{
		Name: info.Name, FixedParams: []string{}, Params: info.Params, Formats: info.Formats, Require: []Requirement{},
	}
	for _, fixed := range info.Fixed {
		p.FixedParams = append(p.FixedParams, fixed.Name)
	}
	for _, q := range info.Require {
		p.Require = append(p.Require, Requirement(q))
	}
	if rate := info.Rate; rate != nil {
		p.RateLimit = &rateStatus{rate.RPS, rate.Burst, info.OwnRate}
	}
	return p
}

func newCacheStatus(s cachestat.Stats) cacheStatus {
	c := cacheStatus{Size: s.Size, Max: s.Max, Hits: s.Hits, Misses: s.Misses}
	if ratio, ok := s.HitRatio(); ok {
		c.HitRatio = &ratio
	}
	return c
}

func keySetStatuses(now time.Time) []keySetStatus {
	all := []keySetStatus{}
	keySets.Range(func(_, value any) bool {
		if s, ok := value.(*keySet); ok {
			all = append(all, newKeySetStatus(s.Status(), now))
		}
		return true
	})
	slices.SortFunc(all, func(a, b keySetStatus) int { return cmp.Compare(a.URL, b.URL) })
	return all
}

func newKeySetStatus(s jwks.Status, now time.Time) keySetStatus {
	k := keySetStatus{
		URL: s.URL, KeyIDs: listOf(s.KIDs), Skipped: s.Skipped, Source: s.Source, Attempts: s.Fetches, Failures: s.Failures,
		UnknownKeyIDs: s.Misses, LastAttempt: timeOf(s.LastAttempt), NextAttempt: timeOf(s.Next),
	}
	if !s.Fetched.IsZero() {
		age := max(now.Sub(s.Fetched).Seconds(), 0)
		k.AgeSeconds = &age
	}
	if s.Err != nil {
		k.LastError = hideSecret(s.Err).Error()
	}
	return k
}

func limiterStatuses() []limiterStatus {
	all := []limiterStatus{}
	limiters.Range(func(key, value any) bool {
		workspace, isText := key.(string)
		l, isLimiter := value.(*pooledLimiter)
		if isText && isLimiter {
			all = append(all, limiterStatus{workspace, l.Len(), l.maxKeys(), l.Evicted()})
		}
		return true
	})
	slices.SortFunc(all, func(a, b limiterStatus) int { return cmp.Compare(a.WorkspaceID, b.WorkspaceID) })
	return all
}

func sharedLimitStatuses() []sharedLimitStatus {
	all := []sharedLimitStatus{}
	sharedStores.Range(func(_, value any) bool {
		if s, ok := value.(*sharedStore); ok {
			all = append(all, s.status())
		}
		return true
	})
	slices.SortFunc(all, func(a, b sharedLimitStatus) int { return cmp.Compare(a.Host, b.Host) })
	return all
}

// listOf keeps an empty list from becoming null, which means something else here.
func listOf(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
