package caddytinybird

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
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
func resolveSecret(log *zap.Logger, setting, text string) (string, error) {
	if err := checkSecretText(setting)(text); err != nil {
		return "", err
	}
	secret, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		// Not the replacer's own words: they quote the text, which may be a secret in the wrong place.
		return "", fmt.Errorf("%s: the variable or file that it names is missing or empty; set it", setting)
	}
	if err := checkSecret(setting, secret); err != nil {
		return "", err
	}
	if secret == text {
		log.Warn(literalSecret,
			zap.String("setting", setting), zap.String("fix", "use {env.NAME} or {file.PATH}; {$NAME} is substituted into the config too"))
	}
	return secret, nil
}

// literalSecret is what is logged about a secret that stands in the config itself.
const literalSecret = "a secret is written in the config itself, where the admin endpoint and the saved config show it"

// secretPlaceholder is the one form in which a secret may come from outside the config. What looks like a key
// between the braces is no name.
var secretPlaceholder = regexp.MustCompile(`^\{(env\.[A-Za-z_][A-Za-z0-9_]*|file\.[^{}]+)\}$`)

// checkSecretText refuses, without printing it, what can be neither a secret nor a placeholder for one.
func checkSecretText(setting string) func(string) error {
	return func(text string) error {
		if !hasPlaceholder(text) {
			return checkSecret(setting, text)
		}
		if !secretPlaceholder.MatchString(text) || secret.Looks(text) {
			return fmt.Errorf("%s holds braces, but is not of the form {env.NAME} or {file.PATH}; name the variable or file that holds it", setting)
		}
		return nil
	}
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

// errMisplaced takes the place of an error whose text would show a key.
var errMisplaced = errors.New("something that looks like a token or a secret key stands where none belongs; it is not shown here, look for it in this setting")

// hideSecret returns err, or errMisplaced when its text holds what looks like a key: errors quote what they are about, and
// keys are pasted into wrong places.
func hideSecret(err error) error {
	if err != nil && secret.Looks(err.Error()) {
		return errMisplaced
	}
	return err
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
	if err := checkBareURL("issuer", issuer); err != nil {
		return err
	}
	if strings.HasSuffix(issuer, "/") {
		return fmt.Errorf("issuer %s: Clerk's issuers have no slash at the end, and the comparison is exact; remove it", shownAddress(issuer))
	}
	return nil
}

// checkFetchURL holds the rule for every address that is fetched: https, or http on this machine or in this network.
func checkFetchURL(setting, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%s %s is no URL; write it as https://host/path", setting, shownAddress(raw))
	}
	base := url.URL{Scheme: u.Scheme, Host: u.Host, User: u.User}
	if _, err := tinybird.ParseUpstream(base.String()); err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	return nil
}

// shownAddress quotes an address for an error, without what may be a credential in it: an address that was mistyped can have one
// anywhere after the user's name, and in its query or fragment.
func shownAddress(raw string) string {
	if strings.Contains(raw, "@") {
		return "(not shown: it may hold a password)"
	}
	if end := strings.IndexAny(raw, "?#"); end >= 0 {
		raw = raw[:end]
	}
	return tinybird.Shown(raw)
}
