package isolation_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
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

// claimant is somebody whose rows may be read with a request: who shows a session, or a token of Clerk's template.
type claimant struct {
	person   *person
	template *templateToken
}

// claimants are all whose credentials a site may take from a request. It is more than one only where the request has
// several and it does not matter which counts, since whoever sends them has both.
func (g *group) claimants(s *setting, site *site, r asked) []claimant {
	var out []claimant
	add := func(text string) {
		for token, p := range s.tokens {
			if strings.Contains(text, token) {
				out = append(out, claimant{person: p})
			}
		}
		for _, k := range g.templates {
			if site.templates && strings.Contains(text, k.token) {
				out = append(out, claimant{template: k})
			}
		}
	}
	if slices.Contains(site.sources, "header") {
		values := r.header["Authorization"]
		if len(values) > 1 {
			return nil
		}
		if len(values) == 1 {
			scheme, _, words := strings.Cut(strings.Trim(values[0], " \t"), " ")
			if scheme == "Bearer" || !words && scheme != "" {
				add(values[0])
				return out // never somebody else for a bad one
			}
		}
	}
	for _, source := range site.sources {
		if source == "cookie" {
			for _, line := range r.header["Cookie"] {
				add(line)
				if decoded, err := url.PathUnescape(line); err == nil && decoded != line {
					add(decoded)
				}
			}
		}
		if name, ok := strings.CutPrefix(source, "query "); ok {
			values, _ := url.ParseQuery(r.rawQuery)
			add(strings.Join(values[name], "\n"))
		}
	}
	return out
}

// tenant is what c may read of a pipe: the values that it has to be fixed to; false: nothing.
func (p *pipe) tenant(c claimant) (map[string]any, bool) {
	values := map[string]any{}
	if c.template != nil {
		if p.roles != nil {
			return nil, false
		}
		maps.Copy(values, c.template.fixed[p.name])
	} else if p.roles != nil && !slices.Contains(p.roles, c.person.role) {
		return nil, false
	}
	for _, f := range p.fixed {
		var value any
		var ok bool
		if c.template == nil {
			value, ok = f.of(c.person)
		} else {
			value, ok = f.ofTemplate(c.template, values[f.name])
		}
		if !ok {
			return nil, false
		}
		values[f.name] = value
	}
	return values, true
}

// ofTemplate is the value under the template's token: what the token fixes, unless the config or the user's id says something else.
func (f fixed) ofTemplate(k *templateToken, given any) (any, bool) {
	own, known := f.of(&person{user: k.user})
	if given == nil {
		return own, known
	}
	text, _ := given.(string)
	if !usable(text) {
		return nil, false
	}
	value, ok := fixed{parts: []part{text}, typ: f.typ}.of(&person{})
	return value, ok && (!known || own == value)
}

// countedAs is what Tinybird counts c's requests under.
func (s *site) countedAs(p *pipe, c claimant) string {
	name, ok := resolve(s.tokenName, c.person, true)
	if !ok || s.tokenName == nil {
		if name, ok = textOf(c.person.claim("clerk.org.id"), false); !ok {
			name = c.person.user
		}
	}
	if at := strings.LastIndex(name, ":"); at >= 0 {
		if other := s.pipes[name[at+1:]]; name[at+1:] == "" || other != nil && other.rate > 0 {
			name += ":"
		}
	}
	if p.rate > 0 {
		name += ":" + p.name
	}
	return name
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

// lets tells whether a client's parameter of that name goes up, to a pipe that is fixed to the values.
func (p *pipe) lets(name string, values map[string]any) bool {
	lower := strings.ToLower(name)
	if !aName.MatchString(name) || lower == "token" || lower == "q" || lower == "pipeline" ||
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

var aMark = regexp.MustCompile(`W_([A-Za-z_]+)_[0-9a-f]{16}`)

// answer holds that an answer has only rows that one of the claimants may read.
func (p *pipe) answer(body []byte, who []claimant) error {
	found := aMark.FindAllSubmatch(body, -1)
	for _, c := range who {
		values, ok := p.tenant(c)
		if ok && !slices.ContainsFunc(found, func(m [][]byte) bool {
			value, isFixed := values[string(m[1])]
			text, _ := textOf(value, false)
			if n, ok := value.(json.Number); ok {
				text = n.String()
			}
			return isFixed && string(m[0]) != mark(string(m[1]), text)
		}) {
			return nil
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("rows of somebody else came back from %s: %s, want %s", p.name, body, p.describe(who))
}

// clientToken holds that a token of the token endpoint allows no more than its holder may read.
func (g *group) clientToken(s *site, body []byte, who []claimant) error {
	var answer struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return fmt.Errorf("no answer of a token endpoint: %s", body)
	}
	input, signature, _ := strings.Cut(answer.Token, ".")
	payload, signature, _ := strings.Cut(signature, ".")
	h := hmac.New(sha256.New, []byte(g.api.SigningKey()))
	h.Write([]byte(input + "." + payload))
	if base64.RawURLEncoding.EncodeToString(h.Sum(nil)) != signature {
		return fmt.Errorf("a token that Tinybird does not take")
	}
	raw, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Scopes []struct {
			Type     string         `json:"type"`
			Resource string         `json:"resource"`
			Fixed    map[string]any `json:"fixed_params"`
		} `json:"scopes"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&claims) != nil || len(claims.Scopes) == 0 {
		return fmt.Errorf("the claims %s", raw)
	}
	for _, scope := range claims.Scopes {
		p := s.pipes[scope.Resource]
		if p == nil || scope.Type != "PIPES:READ" || len(claims.Scopes) > 1 && p.rate > 0 {
			return fmt.Errorf("the scope %v", scope)
		}
		if scope.Fixed == nil {
			scope.Fixed = map[string]any{}
		}
		if !slices.ContainsFunc(who, func(c claimant) bool {
			want, ok := p.tenant(c)
			return c.person != nil && ok && reflect.DeepEqual(want, scope.Fixed)
		}) {
			return fmt.Errorf("the scope %v is nobody's of %d", scope, len(who))
		}
	}
	return nil
}
