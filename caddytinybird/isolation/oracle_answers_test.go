package isolation_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

var aMark = regexp.MustCompile(`W_([A-Za-z_]+)_[0-9a-f]{16}`)

// answer holds that an answer has only rows that one of the claimants may read.
func (p *pipe) answer(body []byte, who []claimant) error {
	found := aMark.FindAllSubmatch(body, -1)
	for _, c := range who {
		values, ok := p.tenant(c)
		if ok && !slices.ContainsFunc(found, func(m [][]byte) bool {
			value, isFixed := values[string(m[1])]
			text, _ := textOf(value, false)
			if n, ok := value.(json.Number); ok {
				text = n.String()
			}
			return isFixed && string(m[0]) != mark(string(m[1]), text)
		}) {
			return nil
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("rows of somebody else came back from %s: %s, want %s", p.name, body, p.describe(who))
}

// clientToken holds that a token of the token endpoint allows no more than its holder may read.
func (g *group) clientToken(s *site, body []byte, who []claimant) error {
	var answer struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return fmt.Errorf("no answer of a token endpoint: %s", body)
	}
	input, signature, _ := strings.Cut(answer.Token, ".")
	payload, signature, _ := strings.Cut(signature, ".")
	h := hmac.New(sha256.New, []byte(g.api.SigningKey()))
	h.Write([]byte(input + "." + payload))
	if base64.RawURLEncoding.EncodeToString(h.Sum(nil)) != signature {
		return fmt.Errorf("a token that Tinybird does not take")
	}
	raw, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Scopes []struct {
			Type     string         `json:"type"`
			Resource string         `json:"resource"`
			Fixed    map[string]any `json:"fixed_params"`
		} `json:"scopes"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&claims) != nil || len(claims.Scopes) == 0 {
		return fmt.Errorf("the claims %s", raw)
	}
	for _, scope := range claims.Scopes {
		p := s.pipes[scope.Resource]
		if p == nil || scope.Type != "PIPES:READ" || len(claims.Scopes) > 1 && p.rate > 0 {
			return fmt.Errorf("the scope %v", scope)
		}
		if scope.Fixed == nil {
			scope.Fixed = map[string]any{}
		}
		if !slices.ContainsFunc(who, func(c claimant) bool {
			want, ok := p.tenant(c)
			return c.person != nil && ok && reflect.DeepEqual(want, scope.Fixed)
		}) {
			return fmt.Errorf("the scope %v is nobody's of %d", scope, len(who))
		}
	}
	return nil
}
