package isolation_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// kinds are what a case is about; the other parts of its request are mostly as usual.
var kinds = []string{"plain", "plain", "plain", "query", "query", "body", "body", "path", "header", "credential", "credential", "cookie", "events", "events", "token endpoint", "mutated", "mutated"}

// planted stands where a credential of the client's would be. It may go nowhere.
const planted = "PLANTED"

// question is a request as a client writes it.
type question struct {
	kind    string
	site    *site
	me      *person // who is signed in; nil if it is not clear
	method  string
	target  string
	header  [][2]string
	body    []byte
	chunked bool
}

// asker makes requests.
type asker struct {
	*rand.Rand

	s *setting
	g *group
}

func (a *asker) question() *question {
	q := &question{kind: pick(a.Rand, kinds), site: pick(a.Rand, a.g.sites), method: "GET"}
	if other := pick(a.Rand, a.g.sites); q.kind == "cookie" && !slices.Contains(q.site.sources, "cookie") {
		q.site = other
	}
	q.me = pick(a.Rand, a.s.people)
	q.target = q.site.prefix + "/v0/pipes/" + a.pipe(q.site) + "." + a.format()
	wild := func(kind string) bool { return q.kind == kind || q.kind == "mutated" && chance(a.Rand, 15) }
	switch {
	case chance(a.Rand, 20) && len(a.g.asked) > 0 && q.kind != "events" && q.kind != "token endpoint":
		// What somebody else has asked: the answer may be there already.
		before := pick(a.Rand, a.g.asked)
		if q.kind == "plain" {
			q.kind = "repeated"
		}
		q.site, q.method, q.target, q.header, q.body = before.site, before.method, before.target, slices.Clone(before.header), before.body
		if chance(a.Rand, 50) {
			q.me = before.me
		}
	case q.kind == "events":
		a.events(q)
	case q.kind == "token endpoint" && q.site.endpoint != "":
		q.target = q.site.prefix + q.site.endpoint
		if chance(a.Rand, 40) {
			q.target += "?pipe=" + pick(a.Rand, pipeNames)
		}
	default:
		if wild("path") {
			q.target = a.path(q.target)
		}
		if query := a.query(wild("query")); query != "" {
			q.target += "?" + query
		}
		if wild("body") || chance(a.Rand, 20) {
			q.method = "POST"
			a.pipeBody(q, wild("body"))
		}
		if q.kind != "path" && q.kind != "token endpoint" {
			before := *q // without the credentials
			before.header = slices.Clone(q.header)
			a.g.asked = append(a.g.asked, &before)
			a.g.asked = a.g.asked[max(0, len(a.g.asked)-8):]
		}
	}
	a.credentials(q, wild("credential"), wild("cookie"))
	if wild("header") {
		a.headers(q)
	}
	return q
}

func (a *asker) pipe(s *site) string {
	if chance(a.Rand, 95) {
		return pick(a.Rand, s.listed)
	}
	return pick(a.Rand, append([]string{"t_id0", "t_id3", "unlisted", "sql"}, pipeNames...))
}

func (a *asker) format() string {
	if chance(a.Rand, 75) {
		return "json"
	}
	return pick(a.Rand, append([]string{"tsv", "xml", "JSON", ""}, allFormats...))
}

// path spells a path in a way that something could read as another.
func (a *asker) path(p string) string {
	for range 1 + a.IntN(2) {
		switch at := a.IntN(len(p)); a.IntN(12) {
		case 0:
			p = p[:at] + fmt.Sprintf("%%%02x", p[at]) + p[at+1:]
		case 1:
			p = p[:at] + fmt.Sprintf("%%25%02X", p[at]) + p[at+1:]
		case 2:
			p = strings.Replace(p, "/pipes/", pick(a.Rand, []string{"//pipes/", "/./pipes/", "/x/../pipes/", "/pipes/../pipes/", "/PIPES/", "%2fpipes/", `\pipes\`, "/pipes//"}), 1)
		case 3:
			p += pick(a.Rand, []string{"/", "/..", "%00", "%20", ";x=1", "/../../sql", ".json", "%0d%0aX:1", "%3fq=1", "#x", "/data", ",sales.json", "&organization_id=org_B"})
		case 4:
			p = pick(a.Rand, []string{"/v0/sql", "/v0/tokens", "/v0/pipes", "/v0/pipes/", "/v0/datasources/events", "/v0/pipes/.json", "*", "/", "/v0/pipes/../sql", "/v0/events", "/v0/pipes/%2e%2e/sql"})
		case 5:
			p = pick(a.Rand, []string{"http://api.tinybird.co", "https://", "http://a:b@", "//", "http://", "HTTP://x@"}) + pick(a.Rand, a.g.sites).host + p
		case 6:
			p = strings.ToUpper(p[:at]) + p[at:]
		case 7:
			p = p[:at] + pick(a.Rand, []string{"/", ".", "..", "%2e", "%2f", "%", "\x80", "\u0131", "%E2%80%8B"}) + p[at:]
		default:
			p = strings.Replace(p, "/v0/pipes/", pick(a.Rand, []string{"/v0/pipes/t_", "/v0/pipes/" + pick(a.Rand, pipeNames) + "/", "/v1/pipes/", "/api/v0/pipes/", "/v0/pipes/sales.json/../"}), 1)
		}
	}
	return strings.NewReplacer(" ", "%20", "\r", "", "\n", "").Replace(p)
}

// name spells a parameter's name.
func (a *asker) name(wild bool) string {
	name := pick(a.Rand, clientNames)
	if chance(a.Rand, 40) {
		name = pick(a.Rand, fixedNames)
	}
	if wild && chance(a.Rand, 40) {
		name = pick(a.Rand, []string{"token", "Token", "TOKEN", "q", "Q", "pipeline", "__tb__deployment", "__TB__semver", "__session", "__clerk_handshake", "__Clerk_db_jwt", "access", "Access", "format", "explain", "template_parameters", "Debug", "debug_source_tables", "playground"})
	}
	if !wild || chance(a.Rand, 40) {
		return name
	}
	at := a.IntN(len(name))
	switch a.IntN(9) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return name[:at] + strings.ToUpper(name[at:at+1]) + name[at+1:]
	case 2:
		return strings.NewReplacer("s", "\u017f", "k", "\u212a", "i", "\u0131", "I", "\u0130").Replace(name)
	case 3:
		return name + pick(a.Rand, []string{" ", "\t", "[]", "[0]", ".", "\x00", "\u200b", "%", ";", ",x", "\u00a0", "\r", "\ufeff", "=", "&"})
	case 4:
		return pick(a.Rand, []string{" ", "\ufeff", "\x00", "&", "?", "\u200b", "."}) + name
	case 5:
		return fmt.Sprintf("%s%%%02x%s", name[:at], name[at], name[at+1:])
	case 6:
		return name[:at] + "\xff" + name[at:]
	default:
		return name
	}
}

// value is what somebody would set a parameter to.
func (a *asker) value(name string) string {
	switch lower := strings.ToLower(name); {
	case lower == "token" || strings.HasPrefix(lower, "__"):
		return planted
	case chance(a.Rand, 50):
		org, _ := pick(a.Rand, a.s.people).org.(string)
		return org
	default:
		return pick(a.Rand, []string{"", "1", "x", "select * from _", "org_B&organization_id=org_B", "a;b", "a,b", "\u00e9\u4e16", "%41", `"`, `\`, "\x00", "\r\nX: y", "true", "null", "+", " ", "\xff", "%zz"})
	}
}

// escape writes text into a query, in one of many spellings.
func (a *asker) escape(text string, wild bool) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		switch {
		case plain && wild && chance(a.Rand, 10):
			fmt.Fprintf(&b, "%%%02x", c)
		case plain, wild && c > ' ' && c < 0x7f && chance(a.Rand, 20):
			b.WriteByte(c)
		case c == ' ' && chance(a.Rand, 50):
			b.WriteByte('+')
		default:
			fmt.Fprintf(&b, pick(a.Rand, []string{"%%%02X", "%%%02x"}), c)
		}
	}
	return b.String()
}

func (a *asker) query(wild bool) string {
	var b strings.Builder
	n := a.IntN(4)
	if wild {
		n = 1 + a.IntN(6)
	}
	spell := wild && chance(a.Rand, 60)
	for i := range n {
		glued := false // what follows is a part of the value before
		if i > 0 {
			sep := "&"
			if spell && chance(a.Rand, 8) {
				sep = pick(a.Rand, []string{";", "&&", "&amp;", "%26", "?", "&=&", "#"})
				glued = !strings.HasPrefix(sep, "&")
			}
			b.WriteString(sep)
		}
		name := a.name(wild)
		b.WriteString(a.escape(name, spell))
		if !spell || chance(a.Rand, 90) {
			value := a.value(name)
			if !wild {
				value = strings.ToValidUTF8(value, "?")
			}
			if glued {
				value = strings.ReplaceAll(value, planted, "inner")
			}
			b.WriteString(pickUnless(a.Rand, spell, "=", "==", "%3D", "=="))
			b.WriteString(a.escape(value, spell))
		}
		if spell && chance(a.Rand, 4) {
			b.WriteString(pick(a.Rand, []string{"%", "%z", "%6", "\xff", "%00"}))
		}
	}
	return b.String()
}

// pickUnless is the first, or now and then one of the others if it may be wild.
func pickUnless(r *rand.Rand, wild bool, first string, others ...string) string {
	if !wild || !chance(r, 5) {
		return first
	}
	return pick(r, others)
}

// write puts a request on the wire, for HTTP/1.1.
func (q *question) write() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.method, q.target, q.site.host)
	for _, h := range q.header {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	switch {
	case q.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		for rest := q.body; len(rest) > 0; {
			n := min(len(rest), 1+len(q.body)/2)
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		b.WriteString("0\r\n\r\n")
	case q.body != nil:
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(q.body), q.body)
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

// mutate spoils bytes here and there.
func (a *asker) mutate(raw []byte) []byte {
	out := bytes.Clone(raw)
	for range 1 + a.IntN(4) {
		if len(out) < 4 {
			return raw
		}
		// Mostly where it is not all about a token: in the first line, or in the body.
		at := a.IntN(len(out))
		head := bytes.Index(out, []byte("\r\n\r\n"))
		switch line := bytes.IndexByte(out, '\n'); {
		case chance(a.Rand, 20):
		case head >= 0 && head+8 < len(out) && chance(a.Rand, 60):
			at = head + a.IntN(len(out)-head)
		case line > 0:
			at = a.IntN(line)
		}
		end := min(len(out), at+1+a.IntN(12))
		switch a.IntN(7) {
		case 0:
			out[at] ^= 1 << a.IntN(8)
		case 1:
			out = append(out[:at:at], out[end:]...)
		case 2:
			out = append(out[:end:end], out[at:]...)
		case 3:
			other := a.IntN(len(out))
			out = append(out[:at:at], append(bytes.Clone(out[other:min(len(out), other+20)]), out[at:]...)...)
		case 4:
			out[at] = byte(a.IntN(256))
		default:
			word := pick(a.Rand, []string{"&", "=", "%", "/", "..", "%2f", ";", "\r\n", "organization_id=org_B&", "&token=x", "Authorization: Bearer ", "?", "\"", "{", "}", ",", ":", "\x00", "%00", "+", "_", "Tenant"})
			out = append(out[:at:at], append([]byte(word), out[at:]...)...)
		}
	}
	return out
}
