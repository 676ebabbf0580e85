package devstack

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// SecretKey is the key of the Backend API.
func (i *Issuer) SecretKey() string { return i.secret }

// backendRoutes are those endpoints of the Backend API that a site needs.
func (i *Issuer) backendRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/clients/handshake_payload", func(w http.ResponseWriter, r *http.Request) {
		i.serveBackend(w, r, i.handshakePayload)
	})
	mux.HandleFunc("GET /v1/jwks", func(w http.ResponseWriter, r *http.Request) {
		i.serveBackend(w, r, i.backendKeys)
	})
	mux.HandleFunc("POST /v1/sessions/{sid}/refresh", func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		i.counts.refreshes++
		i.mu.Unlock()
		i.serveBackend(w, r, i.refresh)
	})
}

// serveBackend lets through whoever has the secret key.
func (i *Issuer) serveBackend(w http.ResponseWriter, r *http.Request, work func(*http.Request) answer) {
	i.mu.Lock()
	fail := i.failBackend
	i.mu.Unlock()
	i.spoiled(w, r, fail, func(r *http.Request) answer {
		key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(key), []byte(i.secret)) != 1 {
			return clerkError(http.StatusUnauthorized, "authentication_invalid", "Unable to authenticate the request, you need to supply an active session or a secret key.")
		}
		return work(r)
	})
}

// backendKeys is the key set as the Backend API has it, which is the same.
func (i *Issuer) backendKeys(*http.Request) answer {
	i.mu.Lock()
	defer i.mu.Unlock()
	return answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}}, body: keySet(i.kid, &i.key.PublicKey)}
}

func (i *Issuer) handshakePayload(r *http.Request) answer {
	list, ok := i.redeem(r.URL.Query().Get("nonce"))
	if !ok {
		return clerkError(http.StatusNotFound, "resource_not_found", "There is no handshake of that nonce.")
	}
	return jsonAnswer(http.StatusOK, map[string]any{"directives": list})
}

// refreshRequest is the body of Clerk's RefreshSession. The last two are about the browser and change nothing.
type refreshRequest struct {
	Format       *string             `json:"format"` // "token" unless told otherwise
	ExpiredToken string              `json:"expired_token"`
	RefreshToken string              `json:"refresh_token"`
	Origin       string              `json:"request_origin"`
	Headers      map[string][]string `json:"request_headers"`
	IP           *string             `json:"request_originating_ip"`
}

// refresh signs a new token for a session that the refresh token belongs to. It refuses with 401, which tells a
// site to try a handshake.
func (i *Issuer) refresh(r *http.Request) answer {
	in, ok := readRefresh(r.Body)
	if !ok {
		return clerkError(http.StatusBadRequest, "request_body_invalid", "The request body is invalid. Please consult the API documentation for more information.")
	}
	sid := r.PathValue("sid")
	origin, originOK := parseHTTP(in.Origin)
	s, alive := i.sessionByID(sid)
	switch {
	case !i.signedFor(in.ExpiredToken, sid):
		return clerkError(http.StatusUnauthorized, "expired_token_invalid", "The expired token is none of this session.")
	case !alive:
		return clerkError(http.StatusUnauthorized, "session_not_found", "The session does not exist or has ended.")
	case subtle.ConstantTimeCompare([]byte(in.RefreshToken), []byte(s.refresh)) != 1:
		return clerkError(http.StatusUnauthorized, "refresh_token_invalid", "The refresh token is none of this session.")
	case !originOK:
		return clerkError(http.StatusUnauthorized, "request_origin_invalid", "request_origin must be an origin.")
	}
	if in.Format == nil || *in.Format != "cookie" {
		token, err := i.tokenFor(s.user(), AZP(in.Origin))
		if err != nil {
			return clerkError(http.StatusInternalServerError, "internal_clerk_error", "The token could not be signed.")
		}
		return jsonAnswer(http.StatusOK, map[string]any{"object": "token", "jwt": token})
	}
	frontend, _ := parseHTTP(i.URL())
	if frontend == nil {
		frontend = origin
	}
	cs, err := i.siteCookies(visit{
		site: i.siteAt(origin, frontend.Host), session: &s, azp: in.Origin,
		plain: true, suffixed: r.URL.Query().Get("suffixed_cookies") == "true",
	})
	if err != nil {
		return clerkError(http.StatusInternalServerError, "internal_clerk_error", "The token could not be signed.")
	}
	return jsonAnswer(http.StatusOK, map[string]any{"object": "cookies", "cookies": fields(cs)})
}

// readRefresh reads one JSON object and nothing that Clerk's document does not list.
func readRefresh(body io.Reader) (in refreshRequest, ok bool) {
	dec := json.NewDecoder(io.LimitReader(body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return refreshRequest{}, false
	}
	_, err := dec.Token()
	return in, errors.Is(err, io.EOF)
}

// signedFor reports whether the token, however old, is one of this instance and of the session sid.
func (i *Issuer) signedFor(token, sid string) bool {
	i.mu.Lock()
	pub := &i.key.PublicKey
	i.mu.Unlock()
	claims := jwt.MapClaims{}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
	t, err := parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return pub, nil })
	return err == nil && t.Header["cat"] == categorySession && claims["sid"] == sid
}
