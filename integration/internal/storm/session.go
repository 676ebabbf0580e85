package storm

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// session is somebody who is signed in, with the token that their browser has at the moment.
type session struct {
	org, user, id, role string

	mu         sync.Mutex
	token      string
	generation int // of the key that signed it, or one before
	renew      time.Time
}

// admin is the role that the pipe `staff` asks for, without its prefix.
const admin = "admin"

// life is how long a token lives, as Clerk's do.
const life = devstack.SessionLifetime

// signUp makes the sessions: as many of each tenant, one in four of an admin.
func (st *storm) signUp() {
	for n := range st.Sessions {
		role := "member"
		if n/st.Tenants%4 == 0 {
			role = admin
		}
		st.sessions = append(st.sessions, &session{
			org: fmt.Sprintf("org_storm_%06d", n%st.Tenants), user: fmt.Sprintf("user_storm_%06d", n), id: fmt.Sprintf("sess_storm_%06d", n), role: role,
		})
	}
}

// options make a token that of the session.
func (s *session) options(more ...devstack.TokenOption) []devstack.TokenOption {
	return append([]devstack.TokenOption{
		devstack.Claim("sub", s.user), devstack.Claim("sid", s.id),
		devstack.Claim("o", map[string]any{"id": s.org, "slg": "slug-" + s.org, "rol": s.role}),
		devstack.Claim("api_key", "sk_live_planted_in_a_claim_"+s.id),
		devstack.Lifetime(life),
	}, more...)
}

// token is the session's token, a new one if it is time for that.
func (st *storm) token(s *session) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token != "" && time.Now().Before(s.renew) {
		return s.token, nil
	}
	generation := st.weather.keys()
	token, err := st.sign(s)
	if err != nil {
		return "", err
	}
	s.token, s.generation = token, generation
	s.renew = time.Now().Add(life/3 + time.Duration(rand.Int64N(int64(life/3)))) //nolint:gosec // so that not all renew at once
	return token, nil
}

// sign makes a token of the session, changed by opts.
func (st *storm) sign(s *session, opts ...devstack.TokenOption) (string, error) {
	token, err := st.stack.Issuer.Token("ada", s.options(opts...)...)
	if err != nil {
		return "", err
	}
	st.Plant("a session token", token)
	return token, nil
}

// cookies are those of the session's browser.
func (st *storm) cookies(s *session) ([]*http.Cookie, error) {
	// The sign-in is dated by the second, and no token is from before it.
	list, err := st.stack.Issuer.Cookies("ada", s.options(devstack.IssuedAt(time.Now()))...)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if len(c.Value) > 16 {
			st.Plant("the cookie "+c.Name, c.Value)
		}
	}
	return list, nil
}

// forget has the next request come with a new token, as when the page script finds the last one refused.
func (s *session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = ""
}
