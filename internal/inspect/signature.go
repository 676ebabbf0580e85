package inspect

import (
	"encoding/base64"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// methods are those by which Clerk may sign.
var methods = map[string]jwt.SigningMethod{"RS256": jwt.SigningMethodRS256, "RS384": jwt.SigningMethodRS384, "RS512": jwt.SigningMethodRS512}

// checkSignature compares the signature with the keys that the config tells of.
func (e *explainer) checkSignature() {
	s := &Signature{Status: NotChecked}
	e.Signature = s
	switch {
	case !e.known.Configured:
		s.Why = "there is no config to tell the keys; name one with --config"
	case e.Algorithm == "HS256":
		e.checkSecrets(s)
	case methods[e.Algorithm] != nil:
		e.checkKeys(s)
	case strings.EqualFold(e.Algorithm, "none"):
		s.Status, s.Why = Invalid, "it says that it has none, so anybody can have made it"
	default:
		s.Why = "neither Clerk nor Tinybird signs by the algorithm that it names"
	}
}

func (e *explainer) signed() (input string, signature []byte, ok bool) {
	signature, err := base64.RawURLEncoding.DecodeString(e.signature)
	return e.head + "." + e.body, signature, err == nil
}

// checkKeys looks for the key that the token names.
func (e *explainer) checkKeys(s *Signature) {
	input, signature, ok := e.signed()
	if !ok {
		s.Status, s.Why = Invalid, "it is not base64url"
		return
	}
	kid, _ := e.header["kid"].(string)
	found := ""
	for _, k := range e.known.Keys {
		if k.ID != "" && k.ID != kid {
			continue
		}
		found = k.From
		if methods[e.Algorithm].Verify(input, signature, k.Public) == nil {
			s.Status, s.By = Valid, k.From
			return
		}
	}
	switch {
	case found != "":
		s.Status, s.Why = Invalid, "it does not fit the key of that name at "+found+": the token is forged, was changed, or is of before a rotation"
	case e.known.NoKeys != "":
		s.Why = e.known.NoKeys
	case len(e.known.Keys) == 0:
		s.Why = "the config names no key"
	default:
		s.Status, s.Why = UnknownKey, "none of the issuers in the config has that key: the token is of another instance, or of before a rotation"
	}
}

// checkSecrets tries the signing keys, by which the edge, or Clerk's template, signs.
func (e *explainer) checkSecrets(s *Signature) {
	input, signature, ok := e.signed()
	if !ok {
		s.Status, s.Why = Invalid, "it is not base64url"
		return
	}
	tried := false
	for _, k := range e.known.Secrets {
		if !k.Signs {
			continue
		}
		tried = true
		if jwt.SigningMethodHS256.Verify(input, signature, []byte(k.Value)) == nil {
			s.Status, s.By = Valid, k.Name
			return
		}
	}
	if !tried {
		s.Why = "the config has no signing key"
		return
	}
	s.Status, s.Why = Invalid, "no signing key of the config made it: it is of another workspace, of before the admin token was refreshed, or forged"
}
