package tinybird

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Bounds of a signing key, in bytes. HS256 wants at least as many as the hash has (RFC 7518 section 3.2).
const (
	minSecret = 32
	maxSecret = 8 << 10
)

// SigningKey is a workspace admin token and what it says about itself. It prints as a note that it is one.
type SigningKey struct {
	Bytes       []byte // the whole token: HS256's key
	WorkspaceID string // from the token's `u`; empty if it does not say
	Host        string // from the token's `host`, a key of RegionURL; empty if it does not say
}

// ParseSigningKey checks a signing key and reads what it says about its workspace. A key that is not
// p.<json>.<signature> is accepted and says nothing. Errors never hold any of the key.
func ParseSigningKey(key string) (SigningKey, error) {
	if err := checkSecret(key); err != nil {
		return SigningKey{}, err
	}
	k := SigningKey{Bytes: []byte(key)}
	parts := strings.Split(key, ".")
	if len(parts) != 3 || parts[0] != "p" || parts[2] == "" {
		return k, nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return k, nil //nolint:nilerr // not a token that says anything
	}
	var said map[string]any // a struct would take "U" for "u"
	if err := json.Unmarshal(payload, &said); err != nil {
		return k, nil //nolint:nilerr // as above
	}
	if u, ok := said["u"].(string); ok && validUUID(u) {
		k.WorkspaceID = u
	}
	if host, ok := said["host"].(string); ok && validHostKey(host) {
		k.Host = host
	}
	return k, nil
}

// checkSecret tells whether key can be a signing key: long enough, and not the text of a placeholder that
// was never filled in.
func checkSecret(key string) error {
	switch {
	case key == "":
		return errors.New("signing_key is empty: set it to the workspace admin token; " +
			"if it is a placeholder, its variable or file is empty or missing")
	case strings.ContainsAny(key, "{}<>"):
		return errors.New("signing_key holds braces or angle brackets: it is a placeholder that was not filled in; " +
			"set it to the workspace admin token")
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return errors.New("signing_key holds spaces, line breaks or characters that no token has: " +
				"copy the workspace admin token again, without what is around it")
		}
	}
	switch {
	case len(key) < minSecret:
		return fmt.Errorf("signing_key is shorter than %d characters: "+
			"set it to the workspace admin token, the whole of it", minSecret)
	case len(key) > maxSecret:
		return fmt.Errorf("signing_key is longer than %d characters: set it to the workspace admin token", maxSecret)
	}
	return nil
}

// CheckWorkspaceID tells whether id can be a workspace's: a UUID.
func CheckWorkspaceID(id string) error {
	if id == "" {
		return errors.New("workspace_id is missing: the signing key does not say it, so set it to the workspace's UUID")
	}
	if !validUUID(id) {
		return fmt.Errorf("workspace_id %s is not a UUID: copy the id from the workspace's settings", Shown(id))
	}
	return nil
}

func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case !digit(c) && (c < 'a' || c > 'f') && (c < 'A' || c > 'F'):
			return false
		}
	}
	return true
}

const redacted = "[signing key]"

var (
	_ fmt.Formatter  = SigningKey{}
	_ slog.LogValuer = SigningKey{}
)

// Format implements fmt.Formatter: no verb prints the key.
func (SigningKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler: no encoder writes the key.
func (SigningKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (SigningKey) LogValue() slog.Value { return slog.StringValue(redacted) }
