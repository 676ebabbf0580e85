package caddytinybird

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// minSecret is the shortest secret that is accepted, in bytes: HS256 wants a key of 256 bits (RFC 7518, 3.2).
const minSecret = 32

// resolveText resolves the placeholders of a setting once, while the config loads. A placeholder that is
// unknown or empty is an error: a missing variable must not quietly become an empty setting.
func resolveText(setting, text string) (string, error) {
	resolved, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: %w; set the variable or file that it names", setting, err)
	}
	return resolved, nil
}

// resolveSecret is resolveText for secrets. It refuses what cannot be one, never printing it, and warns
// about one that stands in the config itself, where the admin endpoint and the autosaved config show it.
func resolveSecret(ctx caddy.Context, setting, text string) (string, error) {
	secret, err := resolveText(setting, text)
	if err != nil {
		return "", err
	}
	if err := checkSecret(setting, secret); err != nil {
		return "", err
	}
	if secret == text {
		ctx.Logger().Warn("a secret is written in the config itself, where the admin endpoint and the saved config show it",
			zap.String("setting", setting), zap.String("fix", "use {env.NAME} or {file.PATH}; {$NAME} is substituted into the config too"))
	}
	return secret, nil
}

func checkSecret(setting, secret string) error {
	switch {
	case secret == "":
		return fmt.Errorf("%s is empty; set it to the token itself, as {env.NAME} or {file.PATH}", setting)
	case strings.ContainsAny(secret, "{}<> \t\r\n"):
		return fmt.Errorf("%s holds braces, angle brackets or spaces, so it is an unfilled placeholder and not a token; check the variable or file it comes from", setting)
	case len(secret) < minSecret:
		return fmt.Errorf("%s is %d bytes long, too short to be a token (at least %d); check the variable or file it comes from", setting, len(secret), minSecret)
	}
	return nil
}

var loadTimePlaceholder = regexp.MustCompile(`\\?\{(?:env|file)\.[^{}]+\}`)

// resolveTemplate resolves the {env.*} and {file.*} of operator text that is expanded for each request. Their values
// are escaped, so that text from the environment is never expanded a second time.
func resolveTemplate(setting, text string) (string, error) {
	var failed error
	resolved := loadTimePlaceholder.ReplaceAllStringFunc(text, func(match string) string {
		if strings.HasPrefix(match, `\`) {
			return match
		}
		value, err := resolveText(setting, match)
		failed = errors.Join(failed, err)
		return templateEscaper.Replace(value)
	})
	return resolved, failed
}

var templateEscaper = strings.NewReplacer(`{`, `\{`, `}`, `\}`)

// checkIssuer holds the form of an issuer: Clerk's `iss` claim is the address of its Frontend API, without a
// slash at the end.
func checkIssuer(issuer string) error {
	if err := checkFetchURL("issuer", issuer); err != nil {
		return err
	}
	if strings.HasSuffix(issuer, "/") {
		return fmt.Errorf("issuer %s: Clerk's issuers have no slash at the end, and the comparison is exact; remove it", issuer)
	}
	return nil
}

// checkFetchURL holds the rule for every address that is fetched: https, or http on this machine or in this network.
func checkFetchURL(setting, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%s %q is no URL; write it as https://host/path", setting, raw)
	}
	base := url.URL{Scheme: u.Scheme, Host: u.Host, User: u.User}
	if _, err := tinybird.ParseUpstream(base.String()); err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	return nil
}
