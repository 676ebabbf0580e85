package clerk

import (
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

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
		first := v.issuers[0]
		i := &issuer{keys: first.keys, lookup: first.lookup, static: first.static}
		i.url, _ = p.claims.text("iss")
		v.issuers = append(v.issuers, i)
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
