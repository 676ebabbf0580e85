package isolation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// site is one site of a config: what is written into the Caddyfile, and what the oracle holds the answers to.
type site struct {
	host      string
	prefix    string // what handle_path takes off
	sources   []string
	clerkAuth bool
	lookedAt  []string // the query parameters in which this site, or a clerk_auth of the config, looks for a session
	shared    []fixed
	pipes     map[string]*pipe
	listed    []string // the pipes' names
	tokenName []part
	rate      int // 0: none
	cors      bool
	endpoint  string
	templates bool
	stamps    []fixed // none: no events
}

type pipe struct {
	name         string
	own          []fixed
	fixed        []fixed // the own and the shared ones
	withheld     []string
	roles        []string
	params       []string // nil: all
	formats      []string // nil: all
	cache        bool
	rate         int
	unrestricted bool
}

// pipeNames are those of the stand-in's pipes; names that differ in letter case are different pipes.
var pipeNames = []string{"sales", "Sales", "sales_by_day", "sale", "_sales", "members", "t_members", "open_stats", "json", "v0"}

// fixedNames are the names of parameters that a config may fix. Every pipe knows them all.
var fixedNames = []string{"organization_id", "Tenant", "user_id", "team_id", "region", "level", "flag"}

// clientNames are the names of parameters that a client may set.
var clientNames = []string{"limit", "Limit", "date_from", "p_1", "organization", "tenant_id", "tokens", "qq", "_", "tb", "c"}

var allFormats = []string{"json", "csv", "csvwithnames", "ndjson", "parquet", "prometheus"}

const markerParam = "c" // a client's parameter that the rows repeat

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func some[T any](r *rand.Rand, of []T, n int) []T {
	var out []T
	for _, i := range r.Perm(len(of))[:min(n, len(of))] {
		out = append(out, of[i])
	}
	return out
}

// randomFixed fixes a parameter to something of the session, or of the config.
func randomFixed(r *rand.Rand, name string) fixed {
	switch name {
	case "level":
		return fixed{name, []part{"{clerk.claims.level}"}, pick(r, []string{"", "number"})}
	case "flag":
		return fixed{name, []part{"{clerk.claims.flag}"}, pick(r, []string{"", "boolean"})}
	case "region":
		return pick(r, []fixed{{name, []part{"eu"}, ""}, {name, []part{"7"}, "number"}, {name, []part{"{clerk.org.slug}"}, ""}})
	case "team_id":
		return fixed{name, []part{pick(r, []string{"{clerk.claims.team_id}", "{clerk.claims.teams}"})}, ""}
	case "user_id":
		return fixed{name, []part{"{clerk.user.id}"}, ""}
	default:
		return fixed{name, pick(r, [][]part{
			{"{clerk.org.id}"}, {"{clerk.org.id}"}, {"{clerk.org.id}"}, {"t-", "{clerk.org.id}"}, {"{clerk.org.id}", "/", "{clerk.user.id}"}, {"{clerk.claims.meta.tenant}"},
		}), ""}
	}
}

func randomSite(r *rand.Rand, host string) *site {
	s := &site{host: host, pipes: make(map[string]*pipe)}
	s.sources = pick(r, [][]string{{"header", "cookie"}, {"header", "cookie"}, {"header"}, {"cookie"}, {"header", "query access"}, {"query access", "header", "cookie"}, {"header", "query token"}})
	s.clerkAuth = chance(r, 20)
	s.templates = !s.clerkAuth && chance(r, 30)
	if chance(r, 25) {
		s.prefix = "/api"
	}
	if chance(r, 60) {
		s.shared = append(s.shared, randomFixed(r, "organization_id"))
	}
	if chance(r, 25) {
		s.shared = append(s.shared, randomFixed(r, pick(r, fixedNames[1:])))
	}
	if chance(r, 40) {
		s.tokenName = pick(r, [][]part{{"everybody"}, {"{clerk.org.id}"}, {"{clerk.user.id}"}, {"{clerk.org.id}", ":", "{clerk.user.id}"}, {"{clerk.claims.team_id}"}})
	}
	if chance(r, 50) {
		s.rate = pick(r, []int{1_000_000, 1_000_000, 30})
	}
	s.cors = chance(r, 30)
	if chance(r, 40) {
		s.endpoint = "/tinybird/token"
	}
	if chance(r, 50) {
		s.stamps = []fixed{randomFixed(r, pick(r, []string{"organization_id", "Tenant"}))}
		if chance(r, 40) {
			s.stamps = append(s.stamps, randomFixed(r, pick(r, []string{"user_id", "level", "flag", "region"})))
		}
	}
	for _, name := range some(r, pipeNames, 3+r.IntN(4)) {
		p := randomPipe(r, name, s.shared)
		s.pipes[name] = p
		s.listed = append(s.listed, name)
	}
	return s
}

func randomPipe(r *rand.Rand, name string, shared []fixed) *pipe {
	p := &pipe{name: name, unrestricted: chance(r, 10)}
	if p.unrestricted {
		for _, f := range shared {
			p.withheld = append(p.withheld, f.name)
		}
	} else {
		n := r.IntN(3)
		if len(shared) == 0 {
			n++
		}
		for _, name := range some(r, fixedNames, n) {
			p.own = append(p.own, randomFixed(r, name))
		}
		p.fixed = slices.Clone(p.own)
		for _, f := range shared {
			if !slices.ContainsFunc(p.own, func(o fixed) bool { return o.name == f.name }) {
				p.fixed = append(p.fixed, f)
			}
		}
	}
	if chance(r, 20) {
		p.roles = some(r, []string{"org:admin", "org:member"}, 1)
	}
	if chance(r, 30) {
		p.params = append(some(r, clientNames[:len(clientNames)-1], 2), markerParam)
	}
	if chance(r, 25) {
		p.formats = append(some(r, allFormats[1:], 2), "json")
	}
	p.cache = chance(r, 40)
	if chance(r, 15) {
		p.rate = 1_000_000
	}
	return p
}

func quoted(parts ...string) string { return `"` + strings.Join(parts, "") + `"` }

func (f fixed) line(directive string) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", directive, f.name, quoted(f.parts...), f.typ)) + "\n"
}

// caddyfile is the site as an operator writes it.
func (s *site) caddyfile(port int, clerk string, g *group) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	var from strings.Builder
	fmt.Fprintf(&from, "clerk {\n%s\n token_from", clerk)
	for _, source := range s.sources {
		from.WriteString(" " + source)
	}
	from.WriteString("\n}\n")

	line("http://%s:%d {\nbind 127.0.0.1", s.host, port)
	if s.prefix != "" {
		line("handle_path %s/* {", s.prefix)
	}
	if s.clerkAuth {
		line("clerk_auth {\n optional\n handshake off\n %s", strings.TrimPrefix(from.String(), "clerk {\n"))
	}
	line("tinybird {")
	if !s.clerkAuth {
		line("%s", from.String())
	}
	line("signing_key {file.%s}\nupstream %s", g.keyFile, g.url)
	if s.tokenName != nil {
		line("token {\n name %s\n}", quoted(s.tokenName...))
	}
	if s.rate > 0 {
		line("rate_limit %d burst %d", s.rate, max(s.rate, 30))
	}
	if s.cors {
		line("cors https://app.example.com")
	}
	if s.endpoint != "" {
		line("token_endpoint %s", s.endpoint)
	}
	if s.templates {
		line("accept_template_tokens")
	}
	for _, f := range s.shared {
		b.WriteString(f.line("fixed_param"))
	}
	for _, name := range s.listed {
		s.pipes[name].write(&b)
	}
	if s.stamps != nil {
		line("events %s {\n append_token {file.%s}", "events", g.appendFile)
		for _, f := range s.stamps {
			b.WriteString(f.line("stamp"))
		}
		line("}")
	}
	if s.prefix != "" {
		line("}")
	}
	line("}\n}")
	return b.String()
}

func (p *pipe) write(b *strings.Builder) {
	fmt.Fprintf(b, "pipe %s {\n", p.name)
	for _, f := range p.own {
		b.WriteString(f.line("fixed_param"))
	}
	for name, list := range map[string][]string{"require role": p.roles, "params": p.params, "formats": p.formats} {
		if list != nil {
			fmt.Fprintf(b, "%s %s\n", name, strings.Join(list, " "))
		}
	}
	if p.unrestricted {
		b.WriteString("unrestricted\n")
	}
	if p.cache {
		b.WriteString("cache 1h\n")
	}
	if p.rate > 0 {
		fmt.Fprintf(b, "rate_limit %d\n", p.rate)
	}
	b.WriteString("}\n")
}
