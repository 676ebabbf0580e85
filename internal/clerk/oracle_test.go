package clerk

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// The oracle is a list of decisions that Clerk's own SDK (@clerk/backend) made, recorded offline with keys made
// for the purpose. CLERK_ORACLE names another copy of it.
type oracle struct {
	Meta struct {
		FrozenNow int64 `json:"frozenNow"`
		Instances map[string]struct {
			Issuer         string `json:"iss"`
			PublishableKey string `json:"pk"`
			FrontendAPI    string `json:"fapi"`
			Suffix         string `json:"suffix"`
			Kind           string `json:"kind"`
		} `json:"instances"`
		JWKSDocuments map[string]json.RawMessage `json:"jwksDocuments"`
	} `json:"meta"`
	Results []oracleCase `json:"results"`
}

type oracleCase struct {
	ID        string `json:"id"`
	Group     string `json:"group"`
	Mode      string `json:"mode"`
	Instance  string `json:"instance"`
	Now       int64  `json:"now"`
	NowMs     int64  `json:"nowMs"`
	Deviation bool   `json:"deviation"`
	Input     struct {
		Token            json.RawMessage            `json:"token"`
		Method           string                     `json:"method"`
		URL              string                     `json:"url"`
		Headers          [][2]string                `json:"headers"`
		JWKSDocument     string                     `json:"jwksDocument"`
		PublishableKey   string                     `json:"publishableKey"`
		Options          map[string]json.RawMessage `json:"options"`
		APIDown          bool                       `json:"apiDown"`
		NoSecretKey      bool                       `json:"noSecretKey"`
		NoPublishableKey bool                       `json:"noPublishableKey"`
	} `json:"input"`
	Expect struct {
		OK          bool            `json:"ok"`
		Reason      *string         `json:"reason"`
		Claims      json.RawMessage `json:"claims"`
		JWKSFetches int64           `json:"jwksFetches"`
		Steps       []struct {
			Advance     int64   `json:"advance"`
			Token       string  `json:"token"`
			OK          bool    `json:"ok"`
			Reason      *string `json:"reason"`
			Subject     string  `json:"sub"`
			JWKSFetches int64   `json:"jwksFetches"`
		} `json:"steps"`
		Status   string           `json:"status"`
		Auth     *oracleAuth      `json:"auth"`
		APICalls map[string]int64 `json:"apiCalls"`
	} `json:"expect"`
}

type oracleAuth struct {
	UserID         string   `json:"userId"`
	SessionID      string   `json:"sessionId"`
	SessionStatus  string   `json:"sessionStatus"`
	OrgID          string   `json:"orgId"`
	OrgRole        string   `json:"orgRole"`
	OrgSlug        string   `json:"orgSlug"`
	OrgPermissions []string `json:"orgPermissions"`
}

// moreFetches are the cases in which more is fetched than by the SDK: a wrong signature may mean that the key
// was replaced under its old kid, so the keys are fetched once more, at most every 10 s.
var moreFetches = map[string]int64{"jwks-bad-signature-no-refetch": 1}

// Cases of these groups need more than a decision about the request as it came: a redirect, a call to Clerk,
// or options that this package does not have.
var laterGroups = []string{"hs-redirect", "hs-loop", "hs-return", "refresh", "satellite", "orgsync"}

// In these groups the decision that leads to a handshake is made here; the redirect is not.
var decidedGroups = []string{"authz", "cookie-prod", "suffix", "dev", "hs-redirect", "hs-loop"}

func loadOracle(t *testing.T) *oracle {
	t.Helper()
	name := os.Getenv("CLERK_ORACLE")
	if name == "" {
		name = filepath.Join("testdata", "oracle", "clerk.json")
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var o oracle
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	return &o
}

// scope says whether a case is decided here: "now", "later" (it ends in a redirect or a call to Clerk), or
// "never" (it asks the SDK for something else than a session).
func (c *oracleCase) scope() string {
	if c.Mode == "verifyToken" {
		return "now"
	}
	var accepts string
	if raw, ok := c.Input.Options["acceptsToken"]; ok {
		_ = json.Unmarshal(raw, &accepts)
		if accepts != "any" && accepts != "session_token" {
			return "never"
		}
	}
	if c.Expect.Status == "handshake" || slices.Contains(laterGroups, c.Group) ||
		strings.Contains(c.Input.URL, "__clerk_redirect_url=") {
		return "later"
	}
	return "now"
}

func TestOracle(t *testing.T) {
	t.Parallel()
	o := loadOracle(t)
	var now, agree, documented, later, laterAgree, never atomic.Int64
	t.Cleanup(func() {
		fmt.Fprintf(os.Stdout, "oracle: %d of %d cases agree, %d deviations as documented; %d await the handshake (%d of them agree on state and reason), %d ask for other tokens than sessions\n",
			agree.Load(), now.Load(), documented.Load(), later.Load(), laterAgree.Load(), never.Load())
	})
	for id := range deviations {
		if os.Getenv("CLERK_ORACLE") == "" && !slices.ContainsFunc(o.Results, func(c oracleCase) bool { return c.ID == id }) {
			t.Errorf("the deviation %s is of no case", id)
		}
	}
	for i := range o.Results {
		c := &o.Results[i]
		counts := map[string]*atomic.Int64{"now": &now, "later": &later, "never": &never}
		counts[c.scope()].Add(1)
		if c.scope() == "never" {
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				got := o.answer(t, c)
				d, deviates := deviations[c.ID]
				switch {
				case c.scope() == "later":
					o.compareLater(t, c, got, &laterAgree)
				case deviates:
					if got.code != d.code {
						t.Errorf("code %q, want %q: %s", got.code, d.code, d.why)
					}
					documented.Add(1)
				default:
					o.compare(t, c, got)
					if !t.Failed() {
						agree.Add(1)
					}
				}
			})
		})
	}
}

// compareLater looks at a case that ends in a redirect: the state that leads there, and its reason.
func (o *oracle) compareLater(t *testing.T, c *oracleCase, got answer, agree *atomic.Int64) {
	t.Helper()
	if c.Expect.Status != "handshake" {
		return
	}
	same := got.state == handshake && got.reason == *c.Expect.Reason
	if same {
		agree.Add(1)
	} else if slices.Contains(decidedGroups, c.Group) {
		t.Errorf("state %d (%s), want a handshake (%s)", got.state, got.reason, *c.Expect.Reason)
	}
}

// answer is what this package says about a case.
type answer struct {
	code    apierr.Code // "" if accepted
	reason  string
	state   state
	claims  claims
	id      *Identity
	fetches int64 // made after the key set was loaded
	steps   []answer
}

func (o *oracle) answer(t *testing.T, c *oracleCase) answer {
	t.Helper()
	start := time.Now()
	clock := func() time.Time {
		return time.Unix(c.Now, c.NowMs*int64(time.Millisecond)).Add(time.Since(start))
	}
	server := &keyServer{doc: o.Meta.JWKSDocuments[c.Input.JWKSDocument], name: c.Input.JWKSDocument, down: c.Input.APIDown, flaky: o.Meta.JWKSDocuments["prodA"]}
	config, err := o.config(t, c, server, clock)
	if err != nil {
		return answer{code: refusedAtLoad}
	}
	v, err := New(config)
	if err != nil {
		return answer{code: refusedAtLoad}
	}
	defer v.Close()
	synctest.Wait()
	if c.Mode != "verifyToken" {
		return authenticate(t, v, c, server)
	}
	if len(c.Expect.Steps) == 0 {
		return verifyRaw(t, v, o.token(t, c.Input.Token), server)
	}
	var all answer
	for _, s := range c.Expect.Steps {
		time.Sleep(time.Duration(s.Advance) * time.Second) //nolint:forbidigo // the bubble's clock, which nothing waits for
		all.steps = append(all.steps, verifyRaw(t, v, s.Token, server))
	}
	return all
}

// token returns a recorded token, or one of the same kind for those that were too long to record.
func (o *oracle) token(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var token string
	if json.Unmarshal(raw, &token) == nil {
		return token
	}
	var omitted struct {
		Length int    `json:"length"`
		SHA256 string `json:"sha256"`
	}
	if err := json.Unmarshal(raw, &omitted); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{".", "A"} {
		token = strings.Repeat(c, omitted.Length)
		if sum := sha256.Sum256([]byte(token)); hex.EncodeToString(sum[:]) == omitted.SHA256 {
			break
		}
	}
	return token
}

func (o *oracle) config(t *testing.T, c *oracleCase, server *keyServer, clock func() time.Time) (Config, error) {
	t.Helper()
	instance := o.Meta.Instances[c.Instance]
	config := Config{Now: clock, PublishableKey: c.Input.PublishableKey}
	if c.Input.NoPublishableKey {
		config.PublishableKey = ""
	}
	issuers := []string{instance.Issuer}
	var pem *string
	var skew *float64
	for name, raw := range c.Input.Options {
		var into any
		switch name {
		case "authorizedParties":
			into = &config.AuthorizedParties
		case "publishableKey":
			into = &config.PublishableKey
		case "jwtKey":
			into = &pem
		case "clockSkewInMs":
			into = &skew
		case "issuer":
			issuers, into = listOrString(t, raw), new(any)
		case "audience":
			config.Audiences, into = listOrString(t, raw), new(any)
		default:
			into = new(any) // of no account here
		}
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatalf("option %s: %v", name, err)
		}
	}
	if skew != nil {
		d := time.Duration(*skew * float64(time.Millisecond))
		config.ClockSkew = &d
	}
	var keys KeySet
	switch {
	case pem != nil:
		pub, err := jwks.ParsePEM(*pem)
		if err != nil {
			return config, err
		}
		keys = StaticKey(pub)
	case !c.Input.NoSecretKey: // the SDK has no keys without it
		set := jwks.New(jwks.Options{URL: "https://clerk.test/.well-known/jwks.json", Client: &http.Client{Transport: server}, Now: clock})
		set.Start()
		t.Cleanup(set.Close)
		keys = set
	}
	for _, url := range issuers {
		config.Issuers = append(config.Issuers, Issuer{URL: url, Keys: keys})
	}
	return config, nil
}

func listOrString(t *testing.T, raw json.RawMessage) []string {
	t.Helper()
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// verifyRaw runs what the SDK calls verifyToken, which does not ask whether the token is that of a session. The
// package's own Verify must not accept what that refuses.
func verifyRaw(t *testing.T, v *Verifier, token string, server *keyServer) answer {
	t.Helper()
	before := server.fetches.Load()
	c := v.candidate(token)
	f := c.fault
	a := answer{state: signedIn}
	if c.known != nil {
		a.claims = c.known.identity.Claims
	} else if f == nil {
		var got *verified
		if got, f = v.verifyToken(t.Context(), c); f == nil {
			a.claims = got.claims
		}
	}
	if a.fetches = server.fetches.Load() - before; f != nil {
		a = answer{state: signedOut, code: f.code, reason: f.reason, fetches: a.fetches}
	}
	if _, err := v.Verify(t.Context(), token); err == nil && f != nil {
		t.Errorf("Verify accepts what verifyToken refuses: %v", f)
	}
	return a
}

func authenticate(t *testing.T, v *Verifier, c *oracleCase, server *keyServer) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), c.Input.Method, c.Input.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range c.Input.Headers {
		if strings.EqualFold(h[0], "host") {
			r.Host = h[1]
			continue
		}
		r.Header.Add(h[0], h[1])
	}
	before := server.fetches.Load()
	d := v.decide(r)
	a := answer{state: d.state, reason: d.reason, id: d.identity, fetches: server.fetches.Load() - before}
	if d.failure != nil {
		a.code = d.failure.code
	}
	if id, err := v.Authenticate(r); (err == nil) != (d.state == signedIn) || id != d.identity {
		t.Errorf("Authenticate disagrees with the decision: %v", err)
	}
	return a
}
