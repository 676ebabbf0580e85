package isolation_test

import (
	"strings"
)

// credentials shows who is asking, in the way that the site takes it. Hostile ones show others as well, or something that is no session.
func (a *asker) credentials(q *question, wild, cookie bool) {
	source := pick(a.Rand, q.site.sources)
	if wild && chance(a.Rand, 20) {
		source = pick(a.Rand, []string{"header", "cookie", "query token", "none"})
	}
	if cookie {
		source = "cookie"
	}
	add := func(name, value string) { q.header = append(q.header, [2]string{name, value}) }
	token := q.me.token
	if wild && chance(a.Rand, 35) {
		token, q.me = pick(a.Rand, a.s.bad), nil
	}
	if q.site.templates && chance(a.Rand, 25) || wild && chance(a.Rand, 5) {
		token, q.me = pick(a.Rand, a.g.templates).token, nil
	}
	name, isQuery := strings.CutPrefix(source, "query ")
	switch {
	case source == "header":
		add("Authorization", pickUnless(a.Rand, wild, "Bearer ", "bearer ", "Bearer  ", "", "Basic ", "Token ", "Bearer\t", " Bearer ")+token)
	case isQuery:
		sep := "?"
		if strings.Contains(q.target, "?") {
			sep = "&"
		}
		q.target += sep + name + "=" + token
	case source == "cookie" && q.me != nil:
		add("Cookie", a.cookie(q.me, cookie))
	}
	if !wild {
		return
	}
	q.me = nil
	victim := pick(a.Rand, a.s.people)
	for range a.IntN(3) {
		switch a.IntN(7) {
		case 0:
			add("Authorization", "Bearer "+victim.token)
		case 1:
			add("Cookie", a.cookie(victim, true))
		case 2:
			add(pick(a.Rand, []string{"Proxy-Authorization", "X-Tinybird-Token", "X-Api-Key", "Token", "authorization_", "X-Authorization", "Cookie2", "X-Forwarded-Authorization"}), "Bearer "+planted)
		case 3:
			add("Authorization", "Bearer "+pick(a.Rand, a.s.bad))
		case 4:
			add("Authorization", a.g.api.SigningKey())
		case 5:
			add("Authorization", "Bearer "+victim.token+pick(a.Rand, []string{" ", ", Bearer x", ",", ".", " " + token}))
		default:
			add("Cookie", "token="+planted+"; __session="+victim.token)
		}
	}
}

// cookie is a Cookie header of p's browser; a hostile one has other sessions in it, too.
func (a *asker) cookie(p *person, wild bool) string {
	pairs := strings.Split(p.cookie, "; ")
	if !wild {
		return p.cookie
	}
	other := pick(a.Rand, a.s.people)
	for range a.IntN(3) {
		at := a.IntN(len(pairs))
		switch a.IntN(6) {
		case 0:
			pairs = append(pairs[:at:at], pairs[at+1:]...)
		case 1:
			pairs = append([]string{pick(a.Rand, strings.Split(other.cookie, "; "))}, pairs...)
		case 2:
			pairs = append(pairs, "__session="+other.token)
		case 3:
			pairs = append([]string{"__session_" + pick(a.Rand, []string{"", "x", "AAAAAAAA"}) + "=" + other.token}, pairs...)
		case 4:
			pairs[at] = pick(a.Rand, []string{" ", "\t", `"`, "%20", "$Version=1; "}) + pairs[at]
		default:
			pairs[at] = strings.Replace(pairs[at], "=", pick(a.Rand, []string{" =", "= ", `="`, "==", "%3D"}), 1)
		}
		if len(pairs) == 0 {
			return ""
		}
	}
	return strings.Join(pairs, pick(a.Rand, []string{"; ", ";", ", ", ";; "}))
}

// headers are those that proxies strip, add, believe or hand on.
func (a *asker) headers(q *question) {
	for range 1 + a.IntN(5) {
		q.header = append(q.header, pick(a.Rand, [][2]string{
			{"Connection", "Authorization, close"},
			{"Connection", "Upgrade"},
			{"Upgrade", "h2c"},
			{"Keep-Alive", planted},
			{"TE", "trailers"},
			{"X-Forwarded-For", planted},
			{"X-Forwarded-Host", planted},
			{"Forwarded", "for=" + planted},
			{"Via", planted},
			{"X-Real-Ip", planted},
			{"X-HTTP-Method-Override", "DELETE"},
			{"X-Original-URL", "/v0/sql"},
			{"X-Rewrite-URL", "/v0/sql"},
			{"X-Clerk-User-Id", planted},
			{"X-Clerk-Org-Id", planted},
			{"Accept", "text/html"},
			{"Accept-Encoding", "gzip"},
			{"Accept-Encoding", "br;q=1, *"},
			{"Accept-Encoding", "identity;q=0"},
			{"User-Agent", "agent"},
			{"If-None-Match", "*"},
			{"If-None-Match", `"x"`},
			{"If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"},
			{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			{"Range", "bytes=0-1"},
			{"Cache-Control", "no-cache"},
			{"Origin", "https://app.example.com"},
			{"Origin", "null"},
			{"Access-Control-Request-Method", "GET"},
			{"Sec-Fetch-Site", "cross-site"},
			{"Referer", planted},
			{"X-Tinybird", planted},
			{"Content-Location", "/v0/sql"},
			{"Expect", "100-continue"},
			{"Host_", planted},
			{"X-Organization-Id", planted},
			{"Max-Forwards", "0"},
			{"Trailer", "Authorization"},
		}))
	}
	if chance(a.Rand, 25) {
		q.method = pick(a.Rand, []string{"HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "get", "PATCH", "QUERY", "POST"})
	}
}
