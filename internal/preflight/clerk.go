package preflight

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jwks"
)

// clerk checks whose sessions are accepted.
func (r *run) clerk(ctx context.Context, c *Clerk) {
	r.publishableKey(c)
	r.issuer(c)
	published := r.issuerKeys(ctx, c)
	r.parties(c)
	r.secretKey(ctx, c, published)
}

func (r *run) publishableKey(c *Clerk) {
	if c.PublishableKey == "" {
		r.skip(CheckPublishableKey, "", "there is none, so the issuer is taken as it is configured")
		return
	}
	kind := "production"
	if c.Instance.Development {
		kind = "development"
	}
	r.pass(CheckPublishableKey, "", "of the "+kind+" instance at "+c.Instance.FrontendAPI)
}

// issuer compares the configured issuers with the one that the publishable key stands for.
func (r *run) issuer(c *Clerk) {
	urls := make([]string, 0, len(c.Issuers))
	known := c.PublishableKey == ""
	for _, i := range c.Issuers {
		urls = append(urls, i.URL)
		u, err := url.Parse(i.URL)
		known = known || i.URL == c.Instance.Issuer || i.URL == c.ProxyURL || err == nil && u.Host == c.Instance.FrontendAPI
	}
	if known {
		r.pass(CheckIssuer, "", "sessions of "+list(urls)+" are accepted")
		return
	}
	r.warn(CheckIssuer, "", "sessions of "+list(urls)+" are accepted, and the publishable key belongs to "+c.Instance.Issuer,
		"Remove `issuer`, unless it is a proxy of that instance's Frontend API; then name it with `proxy_url`.")
}

// issuerKeys fetches the keys of all issuers, and returns the kids that it found. They are nil if some are not known.
func (r *run) issuerKeys(ctx context.Context, c *Clerk) []string {
	if c.Pinned != nil {
		r.pass(CheckKeys, "", fmt.Sprintf("jwt_key is a key of %d bits; none are fetched, and a rotated one needs a new config", c.Pinned.N.BitLen()))
		return nil
	}
	var all, seen []string
	whole := true
	for _, i := range c.Issuers {
		if slices.Contains(seen, i.KeysURL) {
			continue
		}
		seen = append(seen, i.KeysURL)
		if r.o.Offline {
			r.skip(CheckKeys, jwks.PrintableURL(i.KeysURL), offline)
			whole = false
			continue
		}
		kids := r.keysAt(ctx, i.KeysURL, c)
		whole = whole && kids != nil
		all = append(all, kids...)
	}
	if !whole {
		return nil
	}
	return all
}

func (r *run) keysAt(ctx context.Context, keysURL string, c *Clerk) []string {
	shown := jwks.PrintableURL(keysURL)
	f, ok := r.keys[keysURL]
	if !ok {
		r.o.Step("the keys at " + shown)
		f.start = r.o.Now()
		limited, cancel := context.WithTimeout(ctx, r.o.Timeout)
		f.keys, f.err = jwks.Fetch(limited, jwks.Options{URL: keysURL, Now: r.o.Now})
		cancel()
		f.stop = r.o.Now()
		r.keys[keysURL] = f
	}
	if f.err != nil {
		r.fail(CheckKeys, shown, f.err.Error(), "Check the publishable key (or issuer, jwks_url, proxy_url), and that this machine reaches that address.")
		return nil
	}
	kids, described := describeKeys(f.keys)
	text := plural(len(kids), "usable key") + ": " + list(described)
	if f.keys.Skipped > 0 {
		r.warn(CheckKeys, shown, fmt.Sprintf("%s; %d more cannot be used", text, f.keys.Skipped),
			"Only RSA keys of at least 2048 bits for signatures can be used. Sessions signed with the others are refused.")
	} else {
		r.pass(CheckKeys, shown, text)
	}
	if u, err := url.Parse(keysURL); err == nil {
		r.clock(u.Host, f.keys.Header, f.start, f.stop, c.ClockSkew, 0)
	}
	return kids
}

func describeKeys(f *jwks.Fetched) (kids, described []string) {
	for _, k := range f.Keys {
		kid := k.Marshal().KID
		kids = append(kids, kid)
		if pub, ok := k.Key().(*rsa.PublicKey); ok {
			described = append(described, fmt.Sprintf("%s (RSA, %d bits)", kid, pub.N.BitLen()))
		}
	}
	return kids, described
}

func (r *run) parties(c *Clerk) {
	const anySite = "so a session is accepted whichever site under your domain obtained it"
	switch {
	case len(c.AuthorizedParties) == 0:
		r.warn(CheckAuthorizedParties, "", "not set, "+anySite,
			"Add `authorized_parties https://app.example.com` with the origins at which your users sign in.")
	case c.AZP == "off":
		r.warn(CheckAuthorizedParties, "", list(c.AuthorizedParties)+" are listed, but azp is off, "+anySite,
			"Remove `azp off`; or write `azp if_present`, if your sessions name no origin.")
	case c.AZP == "if_present":
		r.pass(CheckAuthorizedParties, "", "sessions obtained at "+list(c.AuthorizedParties)+" are accepted, and those that name no origin (azp if_present)")
	default:
		r.pass(CheckAuthorizedParties, "", "only sessions obtained at "+list(c.AuthorizedParties)+" are accepted")
	}
}

// secretKey asks Clerk's Backend API for the instance's keys, which changes nothing and tells two things: that the key is good,
// and whether it is of the same instance.
func (r *run) secretKey(ctx context.Context, c *Clerk, published []string) {
	if c.Backend == nil {
		return
	}
	if c.PublishableKey != "" {
		kind := "sk_live_"
		if c.Instance.Development {
			kind = "sk_test_"
		}
		if strings.HasPrefix(c.SecretKey, "sk_") && !strings.HasPrefix(c.SecretKey, kind) {
			r.fail(CheckSecretKey, "", "it is of another kind of instance than the publishable key", "Take both keys from the same instance; its secret key begins with "+kind+".")
			return
		}
	}
	if r.o.Offline {
		r.skip(CheckSecretKey, "", offline)
		return
	}
	r.o.Step("Clerk's Backend API")
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	kids, err := c.Backend.KeyIDs(ctx)
	if e, ok := errors.AsType[*bapi.Error](err); ok && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) {
		r.fail(CheckSecretKey, "", "Clerk refuses it: "+err.Error(), "Copy the secret key of this instance from the Clerk dashboard, under API keys.")
		return
	}
	switch {
	case err != nil:
		r.fail(CheckSecretKey, "", err.Error(), "This machine has to reach Clerk's Backend API (api_url) to renew sessions.")
	case published != nil && !slices.ContainsFunc(kids, func(kid string) bool { return slices.Contains(published, kid) }):
		r.fail(CheckSecretKey, "", "it is of another instance than the publishable key: their keys differ", "Take both keys from the same instance.")
	default:
		r.pass(CheckSecretKey, "", "Clerk accepts it")
	}
}
