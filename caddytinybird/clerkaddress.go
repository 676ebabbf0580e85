package caddytinybird

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/bapi"
)

// resolveAddresses reads where Clerk is found.
func (c *Clerk) resolveAddresses() error {
	var err error
	if c.jwksURL, err = resolveAddress("jwks_url", c.JWKSURL, func(raw string) error { return checkFetchURL("jwks_url", raw) }); err != nil {
		return err
	}
	if c.apiURL, err = resolveAddress("api_url", c.APIURL, checkAPIURL); err != nil {
		return err
	}
	c.proxyURL, err = resolveAddress("proxy_url", c.ProxyURL, checkProxyURL)
	c.proxyURL = strings.TrimRight(c.proxyURL, "/")
	return err
}

func resolveAddress(setting, text string, check func(string) error) (string, error) {
	resolved, err := resolveText(setting, text)
	if err != nil || resolved == "" {
		return "", err
	}
	return resolved, check(resolved)
}

// frontendAPI is the base URL of the instance's Frontend API, or "" for the one that follows from the publishable key.
func (c *Clerk) frontendAPI() string {
	if c.proxyURL != "" {
		return c.proxyURL
	}
	for _, issuer := range c.issuers {
		// An instance on this machine has a port and no TLS.
		if u, err := url.Parse(issuer); err == nil && u.Host == c.instance.FrontendAPI && issuer != c.instance.Issuer {
			return issuer
		}
	}
	return ""
}

// backendAPI returns the client of Clerk's Backend API that all sites with these settings share, or nil without a secret key.
func (c *Clerk) backendAPI() (*bapi.Client, error) {
	if c.secretKey == "" || c.backend != nil {
		return c.backend, nil
	}
	client, err := bapi.New(bapi.Options{URL: c.apiURL, SecretKey: c.secretKey})
	if err != nil {
		return nil, fmt.Errorf("secret_key, api_url: %w", err)
	}
	c.backend = client
	return client, nil
}

func checkAPIURL(raw string) error { return checkBareURL("api_url", raw) }

// checkProxyURL accepts a URL, or a path on the site itself. Browsers read "//" and "/\" at its start as another host.
func checkProxyURL(raw string) error {
	if !strings.HasPrefix(raw, "/") {
		return checkBareURL("proxy_url", raw)
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(raw[1:], "/"), "/") {
		if strings.Trim(segment, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || segment == "" {
			return fmt.Errorf("proxy_url %s is no path of letters, digits, - and _ between single slashes; write it as /__clerk", shownAddress(raw))
		}
	}
	return nil
}

// checkBareURL is checkFetchURL for a URL to which a path is appended.
func checkBareURL(setting, raw string) error {
	if strings.ContainsAny(raw, "?#") {
		return fmt.Errorf("%s %s has a query or a fragment; remove it", setting, shownAddress(raw))
	}
	return checkFetchURL(setting, raw)
}
