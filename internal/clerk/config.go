package clerk

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
)

const (
	defaultClockSkew     = 5 * time.Second // the SDK's
	maxClockSkew         = time.Minute
	defaultMaxLifetime   = 24 * time.Hour
	defaultMaxToken      = 8 << 10
	defaultMaxIdentities = 10_000
)

// The values of Config.AZP.
const (
	azpStrict    = "strict"
	azpIfPresent = "if_present"
	azpOff       = "off"
)

// issuer is an Issuer with what is needed to look up its keys.
type issuer struct {
	url    string
	keys   KeySet
	lookup keyfunc.Keyfunc
	static *rsa.PublicKey // set if the token's kid plays no part
	last   atomic.Pointer[rsaKey]
}

// settled is a Config with its defaults filled in.
type settled struct {
	instance      Instance
	issuers       []*issuer
	rules         rules
	header        bool
	others        []Source
	maxToken      int
	maxIdentities int
}

func (c *Config) settle() (settled, error) {
	s := settled{maxToken: c.MaxTokenSize, maxIdentities: c.MaxIdentities}
	var err error
	if c.PublishableKey != "" {
		if s.instance, err = ParsePublishableKey(c.PublishableKey); err != nil {
			return s, err
		}
	}
	if c.Domain != "" && !s.instance.Development { // where it decides nothing, and is localhost:3001 or the like
		if !isHost(c.Domain) {
			return s, fmt.Errorf("satellite %q: want the domain of the satellite, such as satellite.example.com", c.Domain)
		}
		s.instance.FrontendAPI = "clerk." + c.Domain
	}
	if s.issuers, err = settleIssuers(c.Issuers); err != nil {
		return s, err
	}
	if s.rules, err = c.settleRules(); err != nil {
		return s, err
	}
	if s.header, s.others, err = settleSources(c.Sources); err != nil {
		return s, err
	}
	if s.maxToken < 0 || s.maxIdentities < 0 {
		return s, errors.New("the token size and the number of identities must not be negative; 0 is the default")
	}
	if s.maxToken == 0 {
		s.maxToken = defaultMaxToken
	}
	if s.maxIdentities == 0 {
		s.maxIdentities = defaultMaxIdentities
	}
	return s, nil
}

func settleIssuers(list []Issuer) ([]*issuer, error) {
	if len(list) == 0 {
		return nil, errors.New("no issuer: give a publishable_key or an issuer")
	}
	issuers := make([]*issuer, 0, len(list))
	for _, i := range list {
		if err := checkIssuer(i.URL); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(issuers, func(known *issuer) bool { return known.url == i.URL }) {
			return nil, fmt.Errorf("issuer %q is listed twice", i.URL)
		}
		if i.Keys == nil {
			return nil, fmt.Errorf("issuer %q has no keys: give a jwks_url or a jwt_key", i.URL)
		}
		lookup, err := keyfunc.New(keyfunc.Options{
			Storage:      i.Keys,
			UseWhitelist: []jwkset.USE{jwkset.UseSig, ""},
		})
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", i.URL, err)
		}
		s := &issuer{url: i.URL, keys: i.Keys, lookup: lookup}
		if k, ok := i.Keys.(*staticKey); ok {
			if k.err != nil {
				return nil, fmt.Errorf("jwt_key: %w", k.err)
			}
			s.static = k.pub
		}
		issuers = append(issuers, s)
	}
	return issuers, nil
}

// checkIssuer accepts what can be the iss of a Clerk token: an absolute URL, compared to the letter.
func checkIssuer(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != schemeHTTPS && u.Scheme != schemeHTTP) ||
		u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return fmt.Errorf("issuer %q: want the exact value of the claim iss, such as https://clerk.example.com", text)
	}
	return nil
}

func (c *Config) settleRules() (rules, error) {
	r := rules{azp: c.AZP, parties: slices.Clone(c.AuthorizedParties), audiences: slices.Clone(c.Audiences), skew: defaultClockSkew, maxLifetime: c.MaxLifetime}
	if c.ClockSkew != nil {
		r.skew = *c.ClockSkew
	}
	if r.skew < 0 || r.skew > maxClockSkew {
		return r, fmt.Errorf("clock_skew %v: want 0s to %v", r.skew, maxClockSkew)
	}
	if r.maxLifetime < 0 {
		return r, fmt.Errorf("max_lifetime %v: want a positive duration", r.maxLifetime)
	}
	if r.maxLifetime == 0 {
		r.maxLifetime = defaultMaxLifetime
	}
	for _, p := range r.parties {
		if err := CheckOrigin(p); err != nil {
			return r, err
		}
	}
	switch r.azp {
	case "":
		r.azp = azpOff
		if len(r.parties) > 0 {
			r.azp = azpStrict
		}
	case azpStrict, azpIfPresent:
		if len(r.parties) == 0 {
			return r, fmt.Errorf("azp %s needs authorized_parties to compare with", r.azp)
		}
	case azpOff:
	default:
		return r, fmt.Errorf("azp %q: want strict, if_present or off", r.azp)
	}
	return r, nil
}

// CheckOrigin accepts what a browser sends as Origin, because that is what Clerk writes into azp.
func CheckOrigin(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != text || strings.ToLower(text) != text {
		return fmt.Errorf("authorized_parties %q: want an origin in lower case and without a slash at its end, such as https://app.example.com", text)
	}
	return nil
}
