package clerk

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
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
			PublicKey      string `json:"publicKeyPem"`
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
		Nonces           map[string][]string        `json:"nonces"`
		Refresh          map[string][]string        `json:"refresh"`
		NoSecretKey      bool                       `json:"noSecretKey"`
		NoPublishableKey bool                       `json:"noPublishableKey"`
	} `json:"input"`
	Expect struct {
		OK          bool            `json:"ok"`
		Reason      *string         `json:"reason"`
		Claims      json.RawMessage `json:"claims"`
		JWKSFetches int64           `json:"jwksFetches"`
		Steps       []oracleStep    `json:"steps"`

		Status    string            `json:"status"`
		TokenType string            `json:"tokenType"`
		Throws    string            `json:"throws"`
		Auth      *oracleAuth       `json:"auth"`
		Headers   map[string]string `json:"headers"`
		APICalls  map[string]int64  `json:"apiCalls"`
		Location  struct {
			Raw string `json:"raw"`
		} `json:"location"`
		SetCookie   []string     `json:"setCookie"`
		RefreshCall *refreshCall `json:"refreshCall"`
	} `json:"expect"`
}

// oracleStep is one of several calls, made after the clock was advanced.
type oracleStep struct {
	Advance     int64   `json:"advance"`
	Token       string  `json:"token"`
	OK          bool    `json:"ok"`
	Reason      *string `json:"reason"`
	Subject     string  `json:"sub"`
	JWKSFetches int64   `json:"jwksFetches"`
}

// refreshCall is what Clerk's Backend API was asked for.
type refreshCall struct {
	SID   string `json:"sid"`
	Query string `json:"query"`
	Body  struct {
		Format        string `json:"format"`
		RefreshToken  string `json:"refresh_token"`
		RequestOrigin string `json:"request_origin"`
	} `json:"body"`
}

type oracleAuth struct {
	Authenticated  bool     `json:"isAuthenticated"`
	UserID         string   `json:"userId"`
	SessionID      string   `json:"sessionId"`
	SessionStatus  string   `json:"sessionStatus"`
	OrgID          string   `json:"orgId"`
	OrgRole        string   `json:"orgRole"`
	OrgSlug        string   `json:"orgSlug"`
	OrgPermissions []string `json:"orgPermissions"`

	FactorVerificationAge any `json:"factorVerificationAge"`
}

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

func TestOracle(t *testing.T) {
	t.Parallel()
	o := loadOracle(t)
	if os.Getenv("CLERK_ORACLE") == "" {
		o.compareTable(t)
	}
	var agree, documented atomic.Int64
	t.Cleanup(func() {
		fmt.Fprintf(os.Stdout, "oracle: %d of %d cases agree, %d deviations as documented\n", agree.Load(), len(o.Results), documented.Load())
	})
	for i := range o.Results {
		c := &o.Results[i]
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				count := &agree
				switch got := o.answer(t, c); {
				case c.Deviation:
					count = &documented
					o.compareDeviation(t, c, got)
				case c.asksForMachine():
					count = &documented
					o.compareMachine(t, c, got)
				default:
					o.compare(t, c, got)
				}
				if !t.Failed() {
					count.Add(1)
				}
			})
		})
	}
}

// asksForMachine reports whether the SDK was told to accept something else than sessions, which is not offered here, and
// found or looked for it. Where it found a session all the same, its decision is one like any other.
func (c *oracleCase) asksForMachine() bool {
	_, told := c.Input.Options["acceptsToken"]
	return told && c.Expect.TokenType != "session_token"
}

// answer is what this package says about a case.
type answer struct {
	code    apierr.Code // "" if accepted
	status  string
	reason  string
	claims  claims
	id      *Identity
	fetches int64 // made after the key set was loaded
	steps   []answer

	location string
	cookies  []string
	calls    map[string]int64
	refresh  *refreshCall
}

func (o *oracle) answer(t *testing.T, c *oracleCase) answer {
	t.Helper()
	start := time.Now()
	clock := func() time.Time {
		return time.Unix(c.Now, c.NowMs*int64(time.Millisecond)).Add(time.Since(start))
	}
	server := o.keyServer(c)
	config, site, err := o.config(t, c, server, clock)
	if err != nil {
		return answer{code: refusedAtLoad}
	}
	v, err := New(config)
	if err != nil {
		return answer{code: refusedAtLoad}
	}
	defer v.Close()
	o.widen(t, c, v)
	synctest.Wait()
	if c.Mode != "verifyToken" {
		s, err := NewSite(v, site)
		if err != nil {
			return answer{code: refusedAtLoad}
		}
		defer s.Close()
		return authenticate(t, s, c, server)
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

// config turns the SDK's options of a case into ours.
func (o *oracle) config(t *testing.T, c *oracleCase, server *keyServer, clock func() time.Time) (Config, SiteConfig, error) {
	t.Helper()
	instance := o.Meta.Instances[c.Instance]
	in := sdkOptions{PublishableKey: c.Input.PublishableKey}
	raw, err := json.Marshal(c.Input.Options)
	if err != nil {
		t.Fatal(err)
	}
	if c.Input.NoPublishableKey {
		in.PublishableKey = ""
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		t.Fatal(err)
	}
	config := Config{
		Now: clock, PublishableKey: in.PublishableKey, AuthorizedParties: in.parties(),
		Audiences: slices.DeleteFunc(listOrString(t, in.Audience), func(one string) bool { return one == "" }),
	}
	if d := in.skew(); d >= 0 && d <= maxClockSkew {
		config.ClockSkew = &d
	}
	var keys KeySet
	switch {
	case in.JWTKey != nil:
		pub, err := jwks.ParsePEM(*in.JWTKey)
		if err != nil {
			return config, SiteConfig{}, err
		}
		keys = StaticKey(pub)
	case !c.Input.NoSecretKey: // the SDK has no keys without it
		set := jwks.New(jwks.Options{URL: "https://clerk.test/.well-known/jwks.json", Client: &http.Client{Transport: server}, Now: clock, Refresh: sdkCacheLife})
		set.Start()
		t.Cleanup(set.Close)
		keys = set
	}
	issuers := listOrString(t, in.Issuer)
	if issuers == nil {
		issuers = []string{instance.Issuer}
	}
	for _, url := range issuers {
		config.Issuers = append(config.Issuers, Issuer{URL: url, Keys: keys})
	}
	site := in.site(c)
	if site.Satellite != nil {
		config.Domain = site.Satellite.Domain
	}
	if !c.Input.NoSecretKey {
		api, err := bapi.New(bapi.Options{SecretKey: "sk_live_oracle", Client: &http.Client{Transport: server.backend(c)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(api.Close)
		site.Backend = api
	}
	return config, site, nil
}

// widen lets a verifier accept what the SDK accepts without being asked and this package does not: any issuer, tokens
// without sid that do not say what they are for, of impersonated sessions, of more than 8 KiB, or for longer than a day,
// and options that no configuration of ours can have. Decisions that are deviations are held against the verifier as it is.
func (o *oracle) widen(t *testing.T, c *oracleCase, v *Verifier) {
	t.Helper()
	if c.Deviation {
		return
	}
	in := sdkOptions{}
	if raw, ok := c.Input.Options["clockSkewInMs"]; ok && json.Unmarshal(raw, &in.ClockSkewInMs) == nil {
		v.rules.skew = in.skew()
	}
	if raw, ok := c.Input.Options["authorizedParties"]; ok && json.Unmarshal(raw, &in.AuthorizedParties) == nil {
		v.rules.parties = slices.DeleteFunc(in.AuthorizedParties, func(one string) bool { return one == "" })
	}
	if _, told := c.Input.Options["issuer"]; told {
		return
	}
	v.templates, v.impersonation, v.maxToken = true, true, 16<<10
	v.rules.maxLifetime = math.MaxInt64
	for _, token := range c.tokens(t) {
		p, err := parse(token)
		if err != nil {
			continue
		}
		i := *v.issuers[0]
		i.url, _ = p.claims.text("iss")
		v.issuers = append(v.issuers, &i)
	}
}

// tokens are all that is a JWT in a case, also inside of other JWTs.
func (c *oracleCase) tokens(t *testing.T) []string {
	t.Helper()
	raw, err := json.Marshal(c.Input)
	if err != nil {
		t.Fatal(err)
	}
	list := jwtPattern.FindAllString(string(raw), -1)
	for _, token := range list {
		if body, err := decodeSegment(strings.Split(token, ".")[1]); err == nil {
			list = append(list, jwtPattern.FindAllString(string(body), -1)...)
		}
	}
	return list
}

var jwtPattern = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)

// sdkOptions are the options of the SDK's authenticateRequest and verifyToken.
type sdkOptions struct {
	AuthorizedParties []string        `json:"authorizedParties"`
	PublishableKey    string          `json:"publishableKey"`
	JWTKey            *string         `json:"jwtKey"`
	ClockSkewInMs     *float64        `json:"clockSkewInMs"`
	Issuer            json.RawMessage `json:"issuer"`
	Audience          json.RawMessage `json:"audience"`
	ProxyURL          string          `json:"proxyUrl"`
	Domain            string          `json:"domain"`
	SignInURL         string          `json:"signInUrl"`
	IsSatellite       bool            `json:"isSatellite"`
	SatelliteAutoSync bool            `json:"satelliteAutoSync"`
	OrganizationSync  struct {
		Organizations    []string `json:"organizationPatterns"`
		PersonalAccounts []string `json:"personalAccountPatterns"`
	} `json:"organizationSyncOptions"`
}

// sdkCacheLife is how long the SDK keeps keys, less what a refresh here may come late.
const sdkCacheLife = 5 * time.Minute * 9 / 10

// skew is the clock skew, by default that of the SDK.
func (in *sdkOptions) skew() time.Duration {
	if in.ClockSkewInMs == nil {
		return defaultClockSkew
	}
	return time.Duration(*in.ClockSkewInMs * float64(time.Millisecond))
}

// parties are the authorized parties. One that no configuration of ours can have is one that nobody is.
func (in *sdkOptions) parties() []string {
	var list []string
	for _, p := range in.AuthorizedParties {
		if CheckOrigin(p) != nil {
			p = "https://nobody.invalid"
		}
		list = append(list, p)
	}
	return list
}

func (in *sdkOptions) site(c *oracleCase) SiteConfig {
	s := SiteConfig{
		FrontendAPI: in.ProxyURL, Handshake: in.PublishableKey != "",
		Organizations: in.OrganizationSync.Organizations, PersonalAccounts: in.OrganizationSync.PersonalAccounts,
	}
	if in.IsSatellite {
		s.Satellite = &Satellite{Domain: in.Domain, SignInURL: in.SignInURL, AutoSync: in.SatelliteAutoSync}
	}
	// The SDK sends people back to wherever the query says; here the satellite has to be listed.
	if u, err := url.Parse(c.Input.URL); err == nil && !c.Deviation {
		if to := originOf(u.Query().Get("__clerk_redirect_url")); to != "" {
			s.Satellites = []string{to}
		}
	}
	return s
}

func listOrString(t *testing.T, raw json.RawMessage) []string {
	t.Helper()
	if raw == nil {
		return nil
	}
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
	a := answer{status: SignedIn}
	if c.known != nil {
		a.claims = c.known.identity.Claims
	} else if f == nil {
		var got *verified
		if got, f = v.verifyToken(t.Context(), c); f == nil {
			a.claims = got.claims
		}
	}
	if a.fetches = server.fetches.Load() - before; f != nil {
		a = answer{status: SignedOut, code: f.code, reason: f.reason, fetches: a.fetches}
	}
	if _, err := v.Verify(t.Context(), token); err == nil && f != nil {
		t.Errorf("Verify accepts what verifyToken refuses: %v", f)
	}
	return a
}

func authenticate(t *testing.T, s *Site, c *oracleCase, server *keyServer) answer {
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
	got := s.Authenticate(r, PublicURL(r, true))
	a := answer{
		status: got.Status, reason: got.Reason, id: got.Identity, location: got.Location, cookies: got.Cookies,
		fetches: server.fetches.Load() - before, calls: server.calls, refresh: server.refreshCall,
	}
	if got.Refusal != nil {
		a.code = got.Refusal.Code
	}
	if (got.Identity != nil) != (got.Status == SignedIn) || (got.Refusal != nil) != (got.Status != SignedIn) {
		t.Errorf("%s with identity %v and refusal %v", got.Status, got.Identity, got.Refusal)
	}
	return a
}
