// Package inspect explains a token to people: what it is, whom it speaks for, when it ends, whether its signature is right. It
// knows the tokens and keys of Clerk and of Tinybird.
//
// What is explained may be a credential that still works. Nothing here writes it, or its signature, anywhere.
package inspect

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxSize is the longest token that is looked at, in bytes.
const MaxSize = 64 << 10

// Kind is what a token is. Kinds are part of the interface: programs compare them.
type Kind string

// The kinds.
const (
	KindSession        Kind = "clerk_session"
	KindTemplate       Kind = "clerk_template" // of a JWT template
	KindM2M            Kind = "clerk_m2m"
	KindOAuth          Kind = "clerk_oauth"
	KindAPIKey         Kind = "clerk_api_key"
	KindHandshake      Kind = "clerk_handshake"
	KindPublishableKey Kind = "clerk_publishable_key"
	KindSecretKey      Kind = "clerk_secret_key"
	KindWebhookSecret  Kind = "clerk_webhook_secret"
	KindTinybirdStatic Kind = "tinybird_static"
	KindTinybirdJWT    Kind = "tinybird_jwt"
	KindTinybirdClerk  Kind = "tinybird_jwt_of_clerk" // signed by Clerk, from its JWT template for Tinybird
	KindJWT            Kind = "jwt"                   // of somebody else
	KindUnknown        Kind = "unknown"
)

// Report is what can be said about a token.
type Report struct {
	Kind  Kind   `json:"kind"`
	What  string `json:"what"`
	Notes []Note `json:"notes,omitempty"` // what else matters about it

	Algorithm string `json:"algorithm,omitempty"`
	KeyID     string `json:"key_id,omitempty"`
	Version   int    `json:"version,omitempty"` // of the claims of a session

	User            string        `json:"user,omitempty"`
	Session         string        `json:"session,omitempty"`
	SessionStatus   string        `json:"session_status,omitempty"`
	Impersonator    string        `json:"impersonator,omitempty"`
	Subject         string        `json:"subject,omitempty"` // of a token that is no user's
	Organization    *Organization `json:"organization,omitempty"`
	Plan            string        `json:"plan,omitempty"`
	Features        []string      `json:"features,omitempty"`
	Issuer          string        `json:"issuer,omitempty"`
	AuthorizedParty string        `json:"authorized_party,omitempty"`

	IssuedAt  *time.Time `json:"issued_at,omitempty"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	Expired   bool       `json:"expired,omitempty"`

	Claims   map[string]any `json:"claims,omitempty"` // those that are none of the above
	Tinybird *Tinybird      `json:"tinybird,omitempty"`

	Signature *Signature `json:"signature,omitempty"` // nil for what is not signed
	Sites     []Verdict  `json:"sites,omitempty"`

	now time.Time
}

// Note is a sentence about a token.
type Note string

// Organization is the active organization of a session.
type Organization struct {
	ID          string   `json:"id"`
	Slug        string   `json:"slug,omitempty"`
	Role        string   `json:"role,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
}

// Tinybird is what a token of Tinybird's says.
type Tinybird struct {
	WorkspaceID string  `json:"workspace_id,omitempty"`
	TokenID     string  `json:"token_id,omitempty"` // of a static token
	Region      string  `json:"region,omitempty"`
	API         string  `json:"api,omitempty"`
	Name        string  `json:"name,omitempty"`
	RPS         string  `json:"rps,omitempty"` // requests a second; empty: no limit
	Scopes      []Scope `json:"scopes,omitempty"`
}

// Scope is what a Tinybird JWT lets its holder read.
type Scope struct {
	Type        string         `json:"type"`
	Resource    string         `json:"resource,omitempty"`
	FixedParams map[string]any `json:"fixed_params,omitempty"`
	Filter      string         `json:"filter,omitempty"`
}

// Signature is whether a token is what it says it is.
type Signature struct {
	Status SignatureStatus `json:"status"`
	By     string          `json:"by,omitempty"`  // whose key it is
	Why    string          `json:"why,omitempty"` // of every status but valid
}

// SignatureStatus is what came of looking at a signature.
type SignatureStatus string

// The statuses of signatures.
const (
	Valid      SignatureStatus = "valid"
	Invalid    SignatureStatus = "invalid"
	UnknownKey SignatureStatus = "unknown_key"
	NotChecked SignatureStatus = "not_checked"
)

// Verdict is what one site of a config makes of the token.
type Verdict struct {
	Hosts     []string      `json:"hosts"` // empty: whatever host
	Directive string        `json:"directive"`
	Accepted  bool          `json:"accepted"`
	Unclear   string        `json:"unclear,omitempty"` // why it cannot be told
	Refusal   *Refusal      `json:"refusal,omitempty"`
	Pipes     []PipeVerdict `json:"pipes,omitempty"`
}

// PipeVerdict is whether the token reads a pipe.
type PipeVerdict struct {
	Pipe    string   `json:"pipe"`
	Refusal *Refusal `json:"refusal,omitempty"` // nil: it does
}

// Refusal is why something is refused.
type Refusal struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Error  string `json:"error"`         // what the client is told
	Why    string `json:"why,omitempty"` // what only the log says
	Docs   string `json:"docs"`
}

// Key is a public key by which a token may be signed.
type Key struct {
	ID     string // empty: that of any key id
	Public *rsa.PublicKey
	From   string // where it was found
}

// Secret is something that a token may be, or may be signed by.
type Secret struct {
	Value string
	Name  string // such as "the signing key of analytics.example.com"
	Signs bool   // Tinybird JWTs
}

// Known is what a config tells, by which a token can be checked.
type Known struct {
	Configured bool   // there is a config
	Keys       []Key  // of Clerk
	NoKeys     string // why there are none, or not all
	Secrets    []Secret
	Now        time.Time
}

var (
	errEmpty   = errors.New("there is no token; give it on stdin, or as @file")
	errTooLong = fmt.Errorf("it is longer than %d bytes, which no token is", MaxSize)
)

// Explain says what a token is. The error is of something that is none at all.
func Explain(text string, k Known) (*Report, error) {
	token := Trim(text)
	switch {
	case token == "":
		return nil, errEmpty
	case len(text) > MaxSize:
		return nil, errTooLong
	}
	e := explainer{Report: &Report{now: k.Now}, known: k, token: token}
	e.explain()
	return e.Report, nil
}

// Trim takes a token out of what is usually copied with it: a header, cookies, a URL, quotes.
func Trim(text string) string {
	text = strings.TrimSpace(text)
	for _, prefix := range []string{"authorization:", "cookie:", "bearer "} {
		if len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
			text = strings.TrimSpace(text[len(prefix):])
		}
	}
	if strings.EqualFold(text, "bearer") {
		return ""
	}
	for pair := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if name == "__session" || strings.HasPrefix(name, "__session_") {
			text = value
		}
	}
	for _, param := range []string{"?token=", "&token="} {
		if _, rest, ok := strings.Cut(text, param); ok {
			text, _, _ = strings.Cut(rest, "&")
		}
	}
	if len(text) > 1 && (text[0] == '"' || text[0] == '\'') && text[len(text)-1] == text[0] {
		text = text[1 : len(text)-1]
	}
	return strings.TrimSpace(text)
}
