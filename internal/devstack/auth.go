package devstack

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// NewSigningKey makes a static token in the shape of a workspace admin token: "p.", the base64url of a JSON with
// the workspace in "u" and the region in "host", and a signature, here of random bytes.
func NewSigningKey(workspaceID string) string {
	body, err := json.Marshal(map[string]string{"u": workspaceID, "id": strings.ToLower(rand.Text()), "host": "local"})
	if err != nil { // strings always marshal
		return ""
	}
	enc := base64.RawURLEncoding
	return "p." + enc.EncodeToString(body) + "." + enc.EncodeToString([]byte(rand.Text()+rand.Text()))
}

// SignToken signs claims as they are with a signing key, HS256 over the bytes of its text, so that a test can make
// any token, good or bad.
func SignToken(signingKey string, claims map[string]any) (string, error) {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims)).SignedString([]byte(signingKey))
	if err != nil {
		return "", fmt.Errorf("sign a Tinybird token: %w", err)
	}
	return token, nil
}

// caller is who a token speaks for.
type caller struct {
	from   string         // header, query or body; "" when there was no token
	token  string         // as presented
	claims map[string]any // of a JWT that verified
	name   string
	scopes []map[string]any
	rps    int
	admin  bool // the signing key itself was presented

	appends bool // the static token for rows was presented
}

// authenticate verifies the request's token by Tinybird's rules: HS256 whatever the header says, exp required and
// without leeway, the right workspace, a name and scopes. Where nothing says what Tinybird makes of a claim that is not as
// documented, the token is refused.
func (a *API) authenticate(in *input) (caller, *refusal) {
	found := in.tokens()
	if len(found) == 0 {
		return caller{}, &refusal{status: 403, text: "invalid authentication token", doc: docAuth}
	}
	c := caller{from: found[0].from, token: found[0].token}
	if c.token == a.key {
		c.admin, c.name = true, "workspace admin token"
		return c, nil
	}
	if c.token == a.append {
		c.appends, c.name = true, "append token"
		return c, nil
	}
	if why, ok := a.verify(&c); !ok {
		// Tinybird repeats the token, as Python prints bytes. An edge must not pass that on.
		return c, &refusal{status: 403, text: fmt.Sprintf("invalid authentication token. Invalid token b'%s': %s", c.token, why), doc: docAuth}
	}
	return c, nil
}

func (a *API) verify(c *caller) (why string, ok bool) {
	parts := strings.Split(c.token, ".")
	if len(parts) != 3 {
		return "", false
	}
	var decoded [3][]byte
	for n, part := range parts {
		var err error
		if decoded[n], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return "", false
		}
	}
	header, payload, sig := decoded[0], decoded[1], decoded[2]
	if !json.Valid(header) || header[0] != '{' {
		return "Invalid header", false
	}
	if err := jwt.SigningMethodHS256.Verify(parts[0]+"."+parts[1], sig, []byte(a.key)); err != nil {
		return "Signature verification failed", false
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	if err := dec.Decode(&c.claims); err != nil {
		return "Invalid payload", false
	}
	return a.checkClaims(c)
}

func (a *API) checkClaims(c *caller) (why string, ok bool) {
	exp, ok := number(c.claims["exp"])
	if !ok {
		return `Token is missing the "exp" claim`, false
	}
	if exp <= float64(a.now().Unix()) {
		return "Signature has expired", false
	}
	if c.claims["workspace_id"] != a.workspace {
		return "Workspace not found", false
	}
	if c.name, _ = c.claims["name"].(string); c.name == "" {
		return `Token is missing the "name" claim`, false
	}
	list, ok := c.claims["scopes"].([]any)
	if !ok || len(list) == 0 {
		return `Token is missing the "scopes" claim`, false
	}
	for _, s := range list {
		scope, ok := s.(map[string]any)
		if !ok {
			return "Invalid scope", false
		}
		c.scopes = append(c.scopes, scope)
	}
	return readLimits(c)
}

func readLimits(c *caller) (why string, ok bool) {
	if c.claims["limits"] == nil {
		return "", true
	}
	limits, _ := c.claims["limits"].(map[string]any)
	rps, ok := number(limits["rps"])
	if !ok {
		return `Invalid "limits" claim`, false
	}
	c.rps = int(math.Ceil(rps)) // 0 or less is no limit
	return "", true
}

// scope finds the one PIPES:READ scope for a pipe, known by any of ids, and returns its fixed parameters. Two
// scopes for one pipe are refused: Tinybird does not document which would count.
func (c caller) scope(ids []string) (map[string]string, *refusal) {
	if c.admin {
		return nil, nil
	}
	var found []map[string]any
	for _, s := range c.scopes {
		resource, ok := s["resource"].(string)
		if ok && s["type"] == "PIPES:READ" && slices.Contains(ids, resource) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return nil, &refusal{status: 403, doc: docAuth, text: fmt.Sprintf("The token b'%s' doesn't have the right scope "+
			"or the resource '%s' is not available", c.token, ids[0])}
	}
	fixed := map[string]string{}
	params, ok := found[0]["fixed_params"].(map[string]any)
	if !ok && found[0]["fixed_params"] != nil {
		return nil, badQuery("Invalid fixed_params")
	}
	for name, v := range params {
		switch v.(type) {
		case []any, map[string]any: // Tinybird documents neither
			return nil, badQuery("Invalid value for the fixed parameter '%s'", name)
		}
		// null leaves it undefined, which is how a pipe that filters only what is defined shows every tenant.
		if text, ok := scalarText(v); ok {
			fixed[name] = text
		}
	}
	return fixed, nil
}

func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}
