package isolation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// asked is a request as a server reads it, taken down before the handler sees it.
type asked struct {
	method   string
	host     string
	path     string // as it was sent
	rawQuery string
	header   http.Header
	body     []byte // as far as it can be read
	whole    bool   // so the body was read to its end
	spoiled  bool   // bytes were changed after it was made, so a mark may be anywhere
}

// goesUp are the headers that a request to Tinybird may have.
var goesUp = []string{
	"Accept", "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "If-Modified-Since",
	"If-None-Match", "Traceparent", "Tracestate", "User-Agent",
}

// envelope holds P1: what went up has one credential, and nothing but what may go up.
func (g *group) envelope(s *setting, up devstack.Recorded, spoiled bool) error {
	if up.Method != http.MethodGet && up.Method != http.MethodPost {
		return fmt.Errorf("the method %s went up", up.Method)
	}
	if "http://"+up.Host != g.url {
		return fmt.Errorf("the host %s went up", up.Host)
	}
	for name, values := range up.Header {
		if !slices.Contains(goesUp, name) || len(values) != 1 {
			return fmt.Errorf("the header %s went up %d times", name, len(values))
		}
		if !spoiled && strings.Contains(values[0], planted) {
			return fmt.Errorf("the client's credential went up in the header %s", name)
		}
	}
	if len(up.Tokens) != 1 || up.TokenFrom != "header" {
		return fmt.Errorf("%d credentials went up, judged by the %s", len(up.Tokens), up.TokenFrom)
	}
	if up.Token == g.api.SigningKey() {
		return fmt.Errorf("the signing key went up as a credential")
	}
	everything := up.Path + "?" + up.RawQuery + "\n" + string(up.Body) + "\n" + up.Token
	if strings.Contains(everything, "eyJ") && strings.Contains(up.Path+up.RawQuery+string(up.Body), ".eyJ") && !spoiled {
		return fmt.Errorf("a token went up beside the minted one")
	}
	if s.tokens[up.Token] != nil || strings.Contains(everything, g.api.SigningKey()) {
		return fmt.Errorf("the session token or the signing key went up")
	}
	if !spoiled && up.Path != "/v0/events" && strings.Contains(up.Path+up.RawQuery+string(up.Body), planted) {
		return fmt.Errorf("what the client sent as a credential went up: %s ? %s: %s", up.Path, up.RawQuery, up.Body)
	}
	return nil
}

var aPath = regexp.MustCompile(`^/v0/pipes/([A-Za-z_][A-Za-z0-9_]*)\.([a-z]+)$`)

// pipeOf holds P3: the path is that of a listed pipe in a format that is allowed.
func (s *site) pipeOf(path string) (*pipe, error) {
	m := aPath.FindStringSubmatch(path)
	if m == nil {
		return nil, fmt.Errorf("the path %s went up", path)
	}
	p := s.pipes[m[1]]
	if p == nil {
		return nil, fmt.Errorf("the pipe %s went up, which is not listed", m[1])
	}
	if !slices.Contains(allFormats, m[2]) || p.formats != nil && !slices.Contains(p.formats, m[2]) {
		return nil, fmt.Errorf("the format %s went up", m[2])
	}
	return p, nil
}

// scoped holds P2: the token is for this pipe alone, fixed to what one of the claimants may read, and counted for that one. It
// returns the values.
func (g *group) scoped(s *site, p *pipe, up devstack.Recorded, who []claimant) (map[string]any, error) {
	scopes, _ := up.Claims["scopes"].([]any)
	if up.Claims == nil || len(scopes) != 1 {
		return nil, fmt.Errorf("the claims %v", up.Claims)
	}
	for claim := range up.Claims {
		if !slices.Contains([]string{"workspace_id", "name", "exp", "scopes", "limits"}, claim) {
			return nil, fmt.Errorf("the claim %s went up", claim)
		}
	}
	scope, _ := scopes[0].(map[string]any)
	values, _ := scope["fixed_params"].(map[string]any)
	if values == nil {
		values = map[string]any{}
	}
	if scope["type"] != "PIPES:READ" || scope["resource"] != p.name || len(scope) > 3 {
		return nil, fmt.Errorf("the scope %v for %s", scope, p.name)
	}
	rate := s.rate
	if p.rate > 0 {
		rate = p.rate
	}
	limits, _ := up.Claims["limits"].(map[string]any)
	if rate == 0 && limits != nil || rate > 0 && limits["rps"] != json.Number(fmt.Sprint(rate)) {
		return nil, fmt.Errorf("the limits %v, want %d", up.Claims["limits"], rate)
	}
	for _, c := range who {
		want, ok := p.tenant(c)
		if ok && reflect.DeepEqual(want, values) && (c.template != nil || up.Claims["name"] == s.countedAs(p, c)) {
			return values, nil
		}
	}
	return nil, fmt.Errorf("%s was read as %v with %v, which none of %d claimants may: %s", p.name, up.Claims["name"], values, len(who), p.describe(who))
}

func (p *pipe) describe(who []claimant) string {
	var b strings.Builder
	for _, c := range who {
		want, ok := p.tenant(c)
		fmt.Fprintf(&b, "%v %v; ", want, ok)
	}
	return b.String()
}

var aName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// ownNames are those that Tinybird reads itself.
var ownNames = []string{
	"token", "q", "pipeline",
	"debug", "debug_source_tables", "explain", "finalize_aggregations", "playground", "query_id", "release_replacements", "template_parameters",
}

// lets tells whether a client's parameter of that name goes up, to a pipe that is fixed to the values.
func (p *pipe) lets(name string, values map[string]any) bool {
	lower := strings.ToLower(name)
	if !aName.MatchString(name) || slices.Contains(ownNames, lower) ||
		strings.HasPrefix(lower, "__tb__") || strings.HasPrefix(lower, "__clerk") || strings.HasPrefix(lower, "__session") {
		return false
	}
	for fixed := range values {
		if strings.EqualFold(fixed, name) {
			return false
		}
	}
	for _, withheld := range p.withheld {
		if strings.EqualFold(withheld, name) {
			return false
		}
	}
	return p.params == nil || slices.Contains(p.params, name)
}

// takes tells whether a parameter is a place where a session is looked for.
func (s *site) takes(name string) bool {
	return slices.ContainsFunc(s.lookedAt, func(source string) bool { return strings.EqualFold(source, name) })
}

// params holds that no parameter went up that may not.
func (s *site) params(p *pipe, up devstack.Recorded, values map[string]any) error {
	query, err := url.ParseQuery(up.RawQuery)
	if err != nil {
		return fmt.Errorf("the query %s went up", up.RawQuery)
	}
	body, ok := members(up.Body)
	if len(up.Body) > 0 && !ok {
		return fmt.Errorf("the body %s went up", up.Body)
	}
	names := make([]string, 0, len(query)+len(body))
	for name := range query {
		names = append(names, name)
	}
	for name := range body {
		names = append(names, name)
	}
	for _, name := range names {
		if !p.lets(name, values) || s.takes(name) {
			return fmt.Errorf("the parameter %q went up", name)
		}
	}
	return nil
}

// path is the path that the handler sees. What takes a prefix off is Caddy's own: it reads escapes and dots, so that only the last part
// of what is left is sure.
func (s *site) path(sent string) string {
	if s.prefix == "" {
		return sent
	}
	if decoded, err := url.PathUnescape(sent); err == nil {
		sent = decoded
	}
	return path.Join("/v0/pipes", path.Base(sent))
}

// same holds that what went up is what the client asked, without what may not go up, and nothing else.
func (s *site) same(p *pipe, r asked, up devstack.Recorded, values map[string]any) error {
	if s.path(r.path) != up.Path {
		return fmt.Errorf("%s was asked, and %s went up", r.path, up.Path)
	}
	if r.method != up.Method {
		return fmt.Errorf("%s became %s", r.method, up.Method)
	}
	asked, err := url.ParseQuery(r.rawQuery)
	if err != nil {
		return fmt.Errorf("a query that Go refuses went up: %q", r.rawQuery)
	}
	lets := func(name string) bool { return p.lets(name, values) && !s.takes(name) }
	for name := range asked {
		if !lets(name) {
			delete(asked, name)
		}
	}
	if got, _ := url.ParseQuery(up.RawQuery); !reflect.DeepEqual(got, asked) {
		return fmt.Errorf("the query %q became %q", r.rawQuery, up.RawQuery)
	}
	if r.method != http.MethodPost || len(r.body) == 0 {
		if len(up.Body) > 0 {
			return fmt.Errorf("the body %q went up", up.Body)
		}
		return nil
	}
	theirs, ok := members(r.body)
	if !ok || !r.whole {
		return fmt.Errorf("the body %q became %q", r.body, up.Body)
	}
	ours, _ := members(up.Body)
	for name, value := range theirs {
		if lets(name) && !sameJSON(value, ours[name]) {
			return fmt.Errorf("%s: %s became %s", name, value, ours[name])
		}
	}
	return nil
}

func sameJSON(a, b []byte) bool {
	read := func(raw []byte) (v any) {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if d.Decode(&v) != nil {
			return fmt.Errorf("no JSON: %s", raw)
		}
		return v
	}
	return reflect.DeepEqual(read(a), read(b))
}

// rows holds that rows that went up are stamped as one of the claimants.
func (s *site) rows(g *group, up devstack.Recorded, who []claimant) error {
	query, err := url.ParseQuery(up.RawQuery)
	if err != nil || query.Get("name") != "events" || up.Token != g.api.AppendToken() || s.stamps == nil {
		return fmt.Errorf("rows went up to %s with the credential of %v", up.RawQuery, up.Claims)
	}
	for name := range query {
		if name != "name" && name != "wait" && name != "format" {
			return fmt.Errorf("the parameter %s went up with rows", name)
		}
	}
	for line := range bytes.Lines(up.Body) {
		row, ok := members(bytes.TrimSuffix(line, []byte("\n")))
		if !ok {
			return fmt.Errorf("the row %s went up", line)
		}
		if !slices.ContainsFunc(who, func(c claimant) bool { return c.person != nil && s.stamped(row, c.person) }) {
			return fmt.Errorf("the row %s went up, in the name of none of %d claimants", line, len(who))
		}
	}
	return nil
}

func (s *site) stamped(row map[string]json.RawMessage, p *person) bool {
	for _, f := range s.stamps {
		want, ok := f.of(p)
		text, _ := json.Marshal(want)
		if !ok || !sameJSON(row[f.name], text) {
			return false
		}
		for name := range row {
			if name != f.name && (strings.EqualFold(name, f.name) || strings.EqualFold(strings.ToUpper(name), strings.ToUpper(f.name))) {
				return false
			}
		}
	}
	return true
}

// upstream holds P1 to P3 for one request that went up, for a request whose credentials are known.
func (g *group) upstream(s *setting, site *site, up devstack.Recorded, who []claimant, spoiled bool) (*pipe, map[string]any, error) {
	if err := g.envelope(s, up, spoiled); err != nil {
		return nil, nil, err
	}
	if up.Path == "/v0/events" {
		return nil, nil, site.rows(g, up, who)
	}
	p, err := site.pipeOf(up.Path)
	if err != nil {
		return nil, nil, err
	}
	values, err := g.scoped(site, p, up, who)
	if err != nil {
		return nil, nil, err
	}
	return p, values, site.params(p, up, values)
}
