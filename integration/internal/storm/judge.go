package storm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

var (
	anyOrg  = regexp.MustCompile(`org_storm_\d{6}`)
	anyUser = regexp.MustCompile(`user_storm_\d{6}`)
	anyID   = regexp.MustCompile(`att_\d+`)
	anyPage = regexp.MustCompile(`page_\d+`)
)

// judge holds an answer against what the request may be answered with.
func (st *storm) judge(a *ask, got rig.Answer, err error, began time.Time) {
	if a.leaves {
		st.ledger.right(a.kind)
		return
	}
	if errors.Is(err, rig.ErrUnanswered) {
		st.unanswered(a, err, began)
		return
	}
	if err != nil {
		st.ledger.wrong(a.kind, a.id, err.Error())
		return
	}
	if a.target != "/tinybird/token" {
		st.Saw("an answer's body", string(got.Body))
	}
	for name, values := range got.Header {
		if name != "Location" && name != "Set-Cookie" { // to Clerk, and to the browser: what they are for
			st.Saw("an answer's "+name, strings.Join(values, ","))
		}
	}
	if foreign := foreigners(a.session, got); foreign != "" {
		st.ledger.wrong(a.kind, a.id, "holds what is another's: "+foreign)
		return
	}
	if !a.upstream && st.ledger.wentUp(a.id) {
		st.ledger.wrong(a.kind, a.id, "Tinybird was asked")
		return
	}
	bad := a.right(got)
	if bad == nil {
		bad = got.Err
	}
	if bad == nil {
		st.ledger.right(a.kind)
		return
	}
	if why := st.excuse(a, got, began); why != "" {
		st.ledger.explained(a.kind, why)
		return
	}
	st.ledger.wrong(a.kind, a.id, fmt.Sprintf("%v: %d %.300s", bad, got.Status, got.Body))
}

// unanswered is the end of a request that nothing came back for: by a fault that cut its answer before a byte of it had left the edge, or
// because Caddy never had it, which the log tells in the end.
func (st *storm) unanswered(a *ask, err error, began time.Time) {
	if name := st.fault(a, "", began); name != "" {
		st.ledger.explained(a.kind, "Tinybird "+name)
		return
	}
	st.ledger.unanswered(a.kind, a.id, err)
}

// fault is what went wrong with Tinybird for this request, which ended with the code; "" if nothing did.
func (st *storm) fault(a *ask, code string, began time.Time) string {
	if a.question != "" {
		// It may have waited for a fetch that somebody else began. That ends when nothing has come for the time-out, and a little more
		// (the edge moves its deadlines seldom): once for the header, and once for the rest.
		return st.ledger.strikesFetch(a.question, code, began.Add(-2*st.Timeout-st.Timeout/4))
	}
	if !a.upstream || !st.weather.tinybirdSince(began) {
		return ""
	}
	name := st.ledger.strikes(a.id)
	switch {
	case a.unnumbered:
		return "answers others"
	case !explains(name, code):
		return ""
	}
	return name
}

// excuse says which fault explains an answer that is not as it should be; "" if none does.
func (st *storm) excuse(a *ask, got rig.Answer, began time.Time) string {
	code := codeOf(got)
	if got.Status == http.StatusUnauthorized && code == tokenInvalid && !st.weather.keysKnown(a.generation, began) {
		if a.session != nil && a.generation < st.weather.keys() { // as a page does, whose token is not accepted any more
			a.session.forget()
		}
		return "the key is not known yet, or not any more"
	}
	name := st.fault(a, code, began)
	if name == "" {
		return ""
	}
	if got.Status == http.StatusOK && got.Err != nil {
		return "Tinybird " + name
	}
	if slices.Contains([]string{"query_refused", "upstream_refused", "upstream_unreachable", "upstream_timeout", "events_incomplete"}, code) {
		return "Tinybird " + name
	}
	return ""
}

// foreigners is the first thing in an answer that is not the session's.
func foreigners(s *session, got rig.Answer) string {
	for _, org := range anyOrg.FindAllString(string(got.Body), -1) {
		if s == nil || org != s.org {
			return org
		}
	}
	for _, user := range anyUser.FindAllString(string(got.Body), -1) {
		if s == nil || user != s.user {
			return user
		}
	}
	return ""
}

// owned says what is missing in an answer that must be the session's, and hold each of the marks, and none other of their kind.
func owned(s *session, got rig.Answer, marks ...string) error {
	text := string(got.Body)
	if !strings.Contains(text, s.org) {
		return errors.New("no row of the tenant")
	}
	for _, mark := range marks {
		if !strings.Contains(text, mark) {
			return fmt.Errorf("no %s in it", mark)
		}
		for _, kind := range []*regexp.Regexp{anyID, anyPage, anyUser} {
			if !kind.MatchString(mark) {
				continue
			}
			for _, found := range kind.FindAllString(text, -1) {
				if found != mark {
					return fmt.Errorf("%s beside %s", found, mark)
				}
			}
		}
	}
	return nil
}

// ownToken says what is wrong with a Tinybird token that was handed out: every scope is for the tenant, and a user's is for the user.
func ownToken(s *session, got rig.Answer) error {
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(got.Body, &answer); err != nil {
		return fmt.Errorf("no token: %w", err)
	}
	claims, err := rig.ReadMinted(answer.Token)
	if err != nil {
		return err
	}
	if claims.Name != s.org || len(claims.Scopes) == 0 {
		return fmt.Errorf("a token of %q with %d scopes", claims.Name, len(claims.Scopes))
	}
	for _, scope := range claims.Scopes {
		if scope.Fixed["organization_id"] != s.org || scope.Resource == "mine" && scope.Fixed["user_id"] != s.user || scope.Resource == "staff" && s.role != admin {
			return fmt.Errorf("the scope %+v", scope)
		}
	}
	return nil
}

func status(got rig.Answer, want int) error {
	if got.Status != want {
		return fmt.Errorf("status %d, want %d", got.Status, want)
	}
	return nil
}

// refusal says what is wrong with an answer that must be that refusal.
func refusal(got rig.Answer, want int, code string) error {
	if err := status(got, want); err != nil {
		return err
	}
	if c := codeOf(got); c != code {
		return fmt.Errorf("code %q, want %s", c, code)
	}
	return nil
}

func codeOf(got rig.Answer) string {
	var body struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(got.Body, &body) != nil {
		return ""
	}
	return body.Code
}
