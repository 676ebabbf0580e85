package caddytinybird

import (
	"errors"

	"github.com/caddyserver/caddy/v2"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// Token says how the minted tokens look.
type Token struct {
	// The token's name: the tenant that Tinybird counts and shows in its statistics. May hold `{clerk.*}`, `{env.*}` and
	// `{file.*}`. Default: the organization's id, else the user's; also when this text resolves to nothing.
	Name string `json:"name,omitempty"`

	// How long a minted token lives, from 1s to 24h. It goes to Tinybird and to nobody else, and is used again until a third of its
	// life is left. Whatever a token endpoint hands out lives as long: then keep it short. Default: 60s.
	TTL caddy.Duration `json:"ttl,omitempty"`
}

// RateLimit is a rate for each tenant: how often all who are counted under one token name may ask.
type RateLimit struct {
	// Requests a second, a whole number of at least 1, or a placeholder for one, such as the output of a `map` from `{clerk.plan}`.
	// A placeholder that yields anything else refuses the request, and never means no limit. Required.
	RPS string `json:"rps"`

	// How many requests are accepted at once, before the rate holds. Tinybird is told the rate only, and may refuse a burst that is far
	// above it. Default: as many as a second's.
	Burst int `json:"burst,omitempty"`
}

// FixedParam is a parameter whose value the client cannot choose.
type FixedParam struct {
	// The parameter's name in the pipe, or the field's in a row. A pipe that does not filter by it shows every tenant's rows, and neither
	// Tinybird nor this handler can tell. Required.
	Name string `json:"name"`

	// Its value: text with `{clerk.*}`, `{env.*}` or `{file.*}`. No other placeholder is accepted, because a client could set
	// it. A value that resolves to nothing refuses the request. Required.
	Value string `json:"value"`

	// `string`, `number` or `boolean`: its type in the minted token. Default: `string`.
	Type string `json:"type,omitempty"`
}

// Requirement is one condition on the identity.
type Requirement struct {
	// `role`, `permission`, `feature` or `plan`; in `clerk_auth` also `organization`. Required.
	Kind string `json:"kind"`

	// The accepted values, of which any will do. Roles and permissions as Clerk shows them (`org:admin`, `org:reports:read`);
	// features and plans by name, or with their scope (`o:pro`); organizations by id or slug. Default: any active organization, and for
	// the other kinds an error.
	Values []string `json:"values,omitempty"`
}

// Pipe says who may read some pipes, and how.
type Pipe struct {
	// The pipes' names in Tinybird, each in one of these lists only. Ids are not accepted. Required.
	Names []string `json:"names"`

	// Fixed parameters of these pipes, added to the shared ones; one of the same name takes the shared one's place. Default: the shared ones.
	FixedParams []FixedParam `json:"fixed_params,omitempty"`

	// Conditions on the identity, all of which must hold. Otherwise the answer is 403 `not_allowed`. Default: none.
	Require []Requirement `json:"require,omitempty"`

	// The parameters that a client may set, spelled exactly; all others are dropped. Default: all but the reserved ones (`token`, `q`,
	// `pipeline`, `__tb__*`, and what else Tinybird's API reads itself, such as `explain`) and the fixed ones.
	Params []string `json:"params,omitempty"`

	// The formats that may be asked for: `json`, `csv`, `csvwithnames`, `ndjson`, `parquet`, `prometheus`. Default: all of them.
	Formats []string `json:"formats,omitempty"`

	// A rate of its own, counted apart from the tenant's other requests. Default: the shared rate.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	// How long an answer is used again for the same question of the same tenant, from 1s to 24h. For as long again it may still be
	// served while a new one is fetched, so that rows can be twice as old as this. Requests are authorized and
	// counted as without it. Default: every request is a query.
	Cache caddy.Duration `json:"cache,omitempty"`

	// How many requests of a tenant for this pipe may be under way at once, counted apart from those for other pipes. Default: the
	// shared bound.
	Concurrency string `json:"concurrency,omitempty"`

	// Lets the pipe be read without any fixed parameter, also without the shared ones: every signed-in user, of whatever tenant, sees the
	// same rows. Default: a pipe without a fixed parameter is an error when the config loads.
	Unrestricted bool `json:"unrestricted,omitempty"`
}

// Events lets clients send rows to some data sources, each row with the tenant's own mark on it.
type Events struct {
	// The data sources' names in Tinybird, each in one of these lists only. Required.
	Datasources []string `json:"datasources"`

	// A static token of the workspace with the scope to append to these data sources, and no other. A secret: write it
	// as `{env.*}` or `{file.*}`. Required.
	AppendToken string `json:"append_token,omitempty"`

	// Fields that are set in every row, over whatever the client sent in them, by the rules of fixed parameters. At least one. Required.
	Stamp []FixedParam `json:"stamp,omitempty"`
}

// Limits bounds memory and requests. All are whole numbers of at least 1.
type Limits struct {
	// How many minted tokens are kept. Further ones are minted anew with each request. Default: 10000.
	Tokens int `json:"tokens,omitempty"`

	// How many tenants are counted at once, for the whole workspace; fewer than 1024 count as 1024. A counter takes about 130 bytes. When there are more, those
	// that hold nothing back go first; one that does is counted in `caddy_tinybird_counters_evicted_total`. Default: 1000000.
	Counters int `json:"counters,omitempty"`

	// The longest accepted path and query, in bytes. Default: 8192.
	URLSize int `json:"url_size,omitempty"`

	// The largest accepted body of a request for a pipe, in bytes. It is read whole before it goes up. Default: 1048576.
	BodySize int64 `json:"body_size,omitempty"`

	// How many answers are kept for the pipes with a `cache`. Default: 10000.
	CacheEntries int `json:"cache_entries,omitempty"`

	// How many bytes these answers have together. As much again is used at most for answers under way. Default: 67108864.
	CacheSize int64 `json:"cache_size,omitempty"`

	// The largest answer that is kept, in bytes as it comes from Tinybird. Larger ones are passed on as without a `cache`. Default: 1048576.
	CacheEntrySize int64 `json:"cache_entry_size,omitempty"`

	// The largest accepted body of rows for `events`, in bytes, unpacked. With its stamps it may have twice as many. Default: 10485760, which is
	// Tinybird's own limit.
	EventsSize int64 `json:"events_size,omitempty"`
}

// policyParams is what a subdirective of that word lists, as the policies know it, with what resolve makes of the values.
func policyParams(word string, configured []FixedParam, resolve func(setting, text string) (string, error)) ([]tinybird.FixedParam, error) {
	fixed := make([]tinybird.FixedParam, 0, len(configured))
	for _, p := range configured {
		value, err := resolve(word+" "+p.Name, p.Value)
		if err != nil {
			return nil, err
		}
		fixed = append(fixed, tinybird.FixedParam{Name: p.Name, Value: value, Type: tinybird.ParamType(p.Type)})
	}
	return fixed, nil
}

// asWritten resolves nothing: while a Caddyfile is adapted, the environment is not looked at.
func asWritten(_, text string) (string, error) { return text, nil }

func (l *RateLimit) spec() *tinybird.RateSpec {
	if l == nil {
		return nil
	}
	return &tinybird.RateSpec{RPS: l.RPS, Burst: l.Burst}
}

// policyConfig is the pipe as the policy knows it.
func (p *Pipe) policyConfig(resolve func(setting, text string) (string, error)) (tinybird.PipeConfig, error) {
	if err := errors.Join(checkRate(p.RateLimit), checkConcurrency(p.Concurrency)); err != nil {
		return tinybird.PipeConfig{}, err
	}
	fixed, err := policyParams("fixed_param", p.FixedParams, resolve)
	if err != nil {
		return tinybird.PipeConfig{}, err
	}
	c := tinybird.PipeConfig{
		Names:        p.Names,
		FixedParams:  fixed,
		Params:       p.Params,
		Formats:      p.Formats,
		RateLimit:    p.RateLimit.spec(),
		Concurrency:  p.Concurrency,
		Unrestricted: p.Unrestricted,
	}
	for _, q := range p.Require {
		c.Require = append(c.Require, tinybird.Requirement(q))
	}
	return c, nil
}
