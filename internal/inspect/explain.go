package inspect

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/clerk"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// explainer is one token under way.
type explainer struct {
	*Report

	known Known
	token string

	head, body, signature string // the segments of a token that has three
	header, claims        map[string]any
}

func (e *explainer) note(text string) { e.Notes = append(e.Notes, Note(text)) }

func (e *explainer) is(kind Kind, what string) { e.Kind, e.What = kind, what }

// explain tells by its beginning what a token is, as both services do.
func (e *explainer) explain() {
	e.split()
	switch {
	case strings.HasPrefix(e.token, "pk_"):
		e.publishableKey()
	case strings.HasPrefix(e.token, "sk_"):
		e.secretKey()
	case strings.HasPrefix(e.token, "whsec_"):
		e.is(KindWebhookSecret, "The signing secret of a webhook endpoint")
		e.note("Nothing here takes it.")
	case strings.HasPrefix(e.token, "mt_"):
		e.is(KindM2M, "A machine (M2M) token of Clerk's, in its opaque form")
		e.opaque()
	case strings.HasPrefix(e.token, "oat_"):
		e.is(KindOAuth, "An OAuth access token of Clerk's, in its opaque form")
		e.opaque()
	case strings.HasPrefix(e.token, "ak_"):
		e.is(KindAPIKey, "An API key of Clerk's, or a machine's secret key, which begins with the same letters")
		e.opaque()
	case e.head == "p":
		e.staticToken()
	case e.claims != nil:
		e.jwt()
	default:
		e.is(KindUnknown, "Nothing that Clerk or Tinybird issues")
		e.note(shape(e.token))
	}
}

// shape says what can be seen of a text without saying what it is.
func shape(text string) string {
	switch {
	case strings.Count(text, ".") != 2:
		return "A session token, like every JWT, has three parts with a dot between them. This has another form; perhaps it was not copied whole."
	case strings.HasPrefix(text, "ey"):
		return "It has the three parts of a JWT, and they cannot be read. Perhaps it was not copied whole, or something else was copied along."
	default:
		return "It has three parts with a dot between them, as a JWT has, and they are none of a JWT."
	}
}

// split takes a token with three segments apart, and decodes the first two of a JWT.
func (e *explainer) split() {
	head, rest, _ := strings.Cut(e.token, ".")
	body, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return
	}
	e.head, e.body, e.signature = head, body, signature
	header, err := decodeObject(head)
	if err != nil {
		return
	}
	claims, err := decodeObject(body)
	if err != nil {
		return
	}
	e.header, e.claims = header, claims
}

var errNoObject = errors.New("no JSON object")

// decodeObject reads a segment that holds a JSON object. It is more lenient than whoever decides by a token.
func decodeObject(segment string) (map[string]any, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(segment, "="))
	if err != nil || !utf8.Valid(raw) {
		return nil, errNoObject
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil || object == nil {
		return nil, errNoObject
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoObject
	}
	return object, nil
}

func (e *explainer) publishableKey() {
	e.is(KindPublishableKey, "A publishable key of Clerk's. It is public, and no token")
	i, err := clerk.ParsePublishableKey(e.token)
	if err != nil {
		e.note("It cannot be read: the part after pk_live_ or pk_test_ is not the address of an instance. Perhaps it was not copied whole.")
		return
	}
	kind := "production"
	if i.Development {
		kind = "development"
	}
	e.Issuer = i.Issuer
	e.note("It belongs to the " + kind + " instance at " + i.FrontendAPI + ". Its sessions have the issuer " + i.Issuer + ", and its keys are at " + i.JWKSURL + ".")
	e.identify()
}

func (e *explainer) secretKey() {
	kind := ""
	switch {
	case strings.HasPrefix(e.token, "sk_live_"):
		kind = " of a production instance"
	case strings.HasPrefix(e.token, "sk_test_"):
		kind = " of a development instance"
	}
	e.is(KindSecretKey, "A secret key of Clerk's"+kind+". Whoever has it can read and change all users")
	e.note("It is for the setting secret_key, and nobody may send it as a token.")
	e.identify()
}

func (e *explainer) opaque() {
	e.note("Only Clerk can tell whose it is. It is no session token: the edge refuses it.")
}

// identify says which of the config's own secrets the token is.
func (e *explainer) identify() {
	if !e.known.Configured {
		return
	}
	for _, s := range e.known.Secrets {
		if s.Value == e.token {
			e.note("It is " + s.Name + ".")
			return
		}
	}
	e.note("It is none of those in the config.")
}

// staticToken explains p.<json>.<signature>.
func (e *explainer) staticToken() {
	e.is(KindTinybirdStatic, "A static token of Tinybird's: an admin token, a user's, or one with some scopes. It does not expire")
	e.note("What it may do is known to Tinybird alone: look it up under Tokens. An admin token can do everything in the workspace.")
	said, err := decodeObject(e.body)
	if err != nil {
		e.note("What it says of itself cannot be read; perhaps it was not copied whole.")
		return
	}
	t := &Tinybird{WorkspaceID: e.text(said["u"]), TokenID: e.text(said["id"]), Region: e.text(said["host"])}
	if api, ok := tinybird.RegionURL(t.Region); ok {
		t.API = api
	}
	e.Tinybird = t
	e.identify()
}
