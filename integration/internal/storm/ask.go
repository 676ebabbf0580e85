package storm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// ask is one request, and what it may be answered with.
type ask struct {
	kind       string
	id         int64
	session    *session // nil: nobody's
	generation int      // of the keys, as the request's token was made
	method     string
	target     string
	header     http.Header
	body       string
	upstream   bool   // Tinybird is asked for it
	question   string // what is asked for several at once, so that Tinybird sees no number; empty: it is asked for one
	unnumbered bool   // it sees none either, of rows
	leaves     bool   // the client does not wait for the answer
	// right says what is wrong with an answer that nothing excuses.
	right func(rig.Answer) error
}

func (a *ask) attempt() string { return "att_" + strconv.FormatInt(a.id, 10) }

// attemptOf is the number in the name of an attempt; 0 if it is none.
func attemptOf(name string) int64 {
	digits, _ := strings.CutPrefix(name, "att_")
	n, _ := strconv.ParseInt(digits, 10, 64)
	return n
}

// raw is a request in bytes.
func raw(method, target string, header http.Header, body string) []byte {
	var b bytes.Buffer
	b.WriteString(method + " " + target + " HTTP/1.1\r\nHost: 127.0.0.1\r\n")
	if body != "" {
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	_ = header.Write(&b) // a buffer takes everything
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

// kind is one of the things that are asked, and how often.
type kind struct {
	weight int
	make   func(*storm, *rand.Rand, *ask) error
}

// kinds are the traffic of a busy edge: pipes by all ways, and a fifth of it refused.
var kinds = []kind{
	{30, (*storm).rows},
	{8, (*storm).posted},
	{6, (*storm).mine},
	{14, (*storm).shared},
	{4, (*storm).scarce},
	{4, (*storm).staff},
	{3, (*storm).large},
	{5, (*storm).tokens},
	{6, (*storm).events},
	{7, (*storm).guarded},
	{2, (*storm).leaver},
	{20, (*storm).refused},
}

// next makes the next request.
func (st *storm) next(rng *rand.Rand) (*ask, error) {
	s := st.sessions[rng.IntN(len(st.sessions))]
	if rng.IntN(3) > 0 { // a few are much busier than most
		s = st.sessions[rng.IntN(len(st.sessions)/20+1)]
	}
	a := &ask{id: st.ledger.newID(), session: s, method: http.MethodGet, header: make(http.Header)}
	a.generation = st.weather.keys()
	token, err := st.token(s)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	a.generation = min(a.generation, s.generation)
	s.mu.Unlock()
	a.header.Set("Authorization", "Bearer "+token)
	a.header.Set("X-Attempt", a.attempt()) // for the access log
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := rng.IntN(total)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return a, k.make(st, rng, a)
		}
	}
	return a, nil
}

// pipe asks for the pipe, with all that could make it another tenant's.
func (st *storm) pipe(rng *rand.Rand, a *ask, name, format string) {
	a.upstream = true
	a.target = fmt.Sprintf("/v0/pipes/%s.%s?attempt=%s&size=%d", name, format, a.attempt(), 1+rng.IntN(20))
	other := st.sessions[rng.IntN(len(st.sessions))]
	switch rng.IntN(6) {
	case 0:
		a.target += "&organization_id=" + other.org
	case 1:
		a.target += "&Organization_ID=" + other.org + "&organization%5Fid=" + other.org
	case 2:
		planted := "p.eyJ1IjoicGxhbnRlZCJ9.planted-by-the-client-" + a.attempt()
		st.Plant("a client's token", planted)
		a.target += "&token=" + planted
	case 3:
		a.target += "&user_id=" + other.user + "&q=SELECT+1&__tb__semver=1"
	}
	a.right = func(got rig.Answer) error {
		if err := status(got, http.StatusOK); err != nil {
			return err
		}
		return owned(a.session, got, a.attempt())
	}
}

func (st *storm) rows(rng *rand.Rand, a *ask) error {
	format := []string{"json", "json", "json", "csv", "csvwithnames", "ndjson", "parquet", "prometheus"}[rng.IntN(8)]
	a.kind = "a pipe, " + format
	st.pipe(rng, a, "rows", format)
	if rng.IntN(20) == 0 {
		a.kind = "a pipe, token in the URL"
		a.target += "&access=" + strings.TrimPrefix(a.header.Get("Authorization"), "Bearer ")
		a.header.Del("Authorization")
	}
	if rng.IntN(4) == 0 {
		a.header.Set("Accept-Encoding", "gzip")
	}
	return nil
}

func (st *storm) posted(rng *rand.Rand, a *ask) error {
	st.pipe(rng, a, "rows", "json")
	a.kind, a.method = "a pipe, POST", http.MethodPost
	a.header.Set("Content-Type", "application/json")
	other := st.sessions[rng.IntN(len(st.sessions))]
	a.body = fmt.Sprintf(`{"size":%d,"organization_id":%q,"token":"p.planted","note":%q}`, 1+rng.IntN(5), other.org, strings.Repeat("x", rng.IntN(2000)))
	return nil
}

func (st *storm) mine(rng *rand.Rand, a *ask) error {
	a.kind = "a pipe of the user's"
	st.pipe(rng, a, "mine", "json")
	a.right = func(got rig.Answer) error {
		if err := status(got, http.StatusOK); err != nil {
			return err
		}
		return owned(a.session, got, a.attempt(), a.session.user)
	}
	return nil
}

func (st *storm) shared(rng *rand.Rand, a *ask) error {
	a.kind, a.upstream = "a pipe with cache", true
	page := 1 + rng.IntN(3)
	a.question = questionOf(a.session.org, strconv.Itoa(page))
	a.target = "/v0/pipes/shared.json?page=" + strconv.Itoa(page)
	a.right = func(got rig.Answer) error {
		if err := status(got, http.StatusOK); err != nil {
			return err
		}
		return owned(a.session, got, "page_"+strconv.Itoa(page))
	}
	return nil
}

// questionOf is what all who share an answer have asked.
func questionOf(org, page string) string { return org + " " + page }

func (st *storm) scarce(rng *rand.Rand, a *ask) error {
	a.kind = "a pipe with a low rate"
	st.pipe(rng, a, "scarce", "json")
	served := a.right
	a.right = func(got rig.Answer) error {
		if got.Status == http.StatusTooManyRequests {
			return refusal(got, http.StatusTooManyRequests, "rate_limited")
		}
		return served(got)
	}
	return nil
}

func (st *storm) staff(rng *rand.Rand, a *ask) error {
	a.kind = "a pipe for admins"
	st.pipe(rng, a, "staff", "json")
	if a.session.role != admin {
		a.kind, a.upstream = "a pipe for admins, refused", false
		a.right = func(got rig.Answer) error { return refusal(got, http.StatusForbidden, "not_allowed") }
	}
	return nil
}

func (st *storm) large(_ *rand.Rand, a *ask) error {
	a.kind, a.upstream = "a large answer", true
	a.target = "/v0/pipes/rows.ndjson?size=300&attempt=" + a.attempt()
	a.right = func(got rig.Answer) error {
		if err := status(got, http.StatusOK); err != nil {
			return err
		}
		if n := bytes.Count(got.Body, []byte(a.session.org)); n != 300 {
			return fmt.Errorf("%d rows", n)
		}
		return owned(a.session, got, a.attempt())
	}
	return nil
}

func (st *storm) leaver(rng *rand.Rand, a *ask) error {
	st.pipe(rng, a, "rows", "json")
	a.kind, a.leaves = "a client that leaves", true
	return nil
}

// tokens asks for a Tinybird token of the client's own.
func (st *storm) tokens(_ *rand.Rand, a *ask) error {
	a.kind, a.target = "the token endpoint", "/tinybird/token"
	a.right = func(got rig.Answer) error {
		if err := status(got, http.StatusOK); err != nil {
			return err
		}
		return ownToken(a.session, got)
	}
	return nil
}

// events sends rows in another tenant's name.
func (st *storm) events(rng *rand.Rand, a *ask) error {
	a.kind, a.method, a.upstream = "rows", http.MethodPost, true
	a.unnumbered = true
	a.target = []string{"/v0/events?name=analytics_events", "/api/tracking"}[rng.IntN(2)]
	a.header.Set("Content-Type", "application/json")
	other := st.sessions[rng.IntN(len(st.sessions))]
	count := 1 + rng.IntN(4)
	for n := range count {
		a.body += fmt.Sprintf(`{"row":"%s_%d","organization_id":%q,"Organization_Id":%q}`+"\n", a.attempt(), n, other.org, other.org)
	}
	st.ledger.sends(a, count)
	a.right = func(got rig.Answer) error {
		if got.Status != http.StatusAccepted && got.Status != http.StatusOK {
			return status(got, http.StatusAccepted)
		}
		st.ledger.accepted(a)
		return nil
	}
	return nil
}

// guarded asks for a page behind clerk_auth, by cookie, saying that it is somebody else.
func (st *storm) guarded(rng *rand.Rand, a *ask) error {
	other := st.sessions[rng.IntN(len(st.sessions))]
	a.target = "/app/page?attempt=" + a.attempt()
	for _, name := range []string{"X-Clerk-Org-Id", "X_Clerk_Org_Id", "x-clerk-user-id"} {
		a.header.Set(name, other.org)
	}
	a.header.Del("Authorization")
	switch rng.IntN(3) {
	case 0:
		a.kind, a.session = "clerk_auth, refused", nil
		a.right = func(got rig.Answer) error { return refusal(got, http.StatusUnauthorized, "token_missing") }
	case 1:
		a.kind, a.session = "clerk_auth, sent away", nil
		a.header.Set("Accept", "text/html")
		a.header.Set("Sec-Fetch-Dest", "document")
		handshake := "planted-handshake-" + a.attempt() + "-nonce"
		st.Plant("a handshake", handshake)
		a.target += "&__clerk_handshake=" + handshake
		a.header.Set("Cookie", "__clerk_handshake_nonce="+handshake+"; __clerk_handshake="+handshake)
		a.right = func(got rig.Answer) error {
			if got.Status >= http.StatusOK && got.Status < http.StatusMultipleChoices {
				return status(got, http.StatusUnauthorized)
			}
			return nil
		}
	default:
		a.kind = "clerk_auth, signed in"
		a.generation = st.weather.keys()
		cookies, err := st.cookies(a.session)
		if err != nil {
			return err
		}
		var jar []string
		for _, c := range cookies {
			jar = append(jar, c.Name+"="+c.Value)
		}
		a.header.Set("Cookie", strings.Join(jar, "; "))
		a.right = func(got rig.Answer) error {
			if err := status(got, http.StatusOK); err != nil {
				return err
			}
			return owned(a.session, got, a.session.user)
		}
	}
	return nil
}
