package clerk

import "encoding/json"

// session is what the cookies say.
type session struct {
	suffixed  bool // the cookies with the instance's suffix count, not the plain ones
	token     string
	candidate candidate // of token, if there is one
	clientUAT int64
	marked    bool // there is a client_uat, whatever it says
}

// pair is one set of cookies, the plain or the suffixed one.
type pair struct {
	token     string
	candidate candidate
	uat       string
}

func (v *Verifier) readPair(j *jar) pair {
	p := pair{token: j[cookieSession], uat: j[cookieClientUAT]}
	if p.token != "" {
		p.candidate = v.candidate(p.token)
	}
	return p
}

// issuedAt is the token's iat, 0 if it has none.
func (p *pair) issuedAt() int64 {
	at, _, _ := p.candidate.unverified().seconds("iat")
	return at
}

// readSession reads the session's cookies. Applications on one domain share the plain names; the suffixed ones
// belong to one instance.
func (v *Verifier) readSession(j *jars) session {
	plain := v.readPair(&j.plain)
	chosen, suffixed := plain, false
	if v.instance.CookieSuffix != "" {
		own := v.readPair(&j.own)
		if suffixed = v.usesSuffix(&plain, &own); suffixed {
			chosen = own
		}
	}
	return session{suffixed: suffixed, token: chosen.token, candidate: chosen.candidate, clientUAT: parseClientUAT(chosen.uat), marked: chosen.uat != ""}
}

// usesSuffix decides which of the two sets of cookies counts. All of it rests on unverified claims: it selects
// the token that is verified next and nothing else.
func (v *Verifier) usesSuffix(plain, own *pair) bool {
	if plain.token != "" {
		iss := plain.candidate.unverified()["iss"] // nil if the token cannot be read
		if !truthy(iss) {
			return false
		}
		if text, _ := iss.(string); issuerHost(text) != v.instance.FrontendAPI {
			return true
		}
	}
	return v.prefersSuffix(plain, own)
}

// prefersSuffix compares the two sets when the plain one is this instance's own, too.
func (v *Verifier) prefersSuffix(plain, own *pair) bool {
	switch {
	case own.uat == "" && own.token == "":
		return false
	case own.uat != "0" && plain.uat != "0" && plain.issuedAt() > own.issuedAt():
		return false
	case own.uat == "0" && plain.uat != "0":
		return false
	case v.instance.Development && own.uat != "0" && plain.uat == "0" && v.pastExpiry(own):
		return false
	case own.uat == "" && own.token != "":
		return false
	default:
		return true
	}
}

// pastExpiry reports whether the token's exp is over, without forgiving any skew.
func (v *Verifier) pastExpiry(p *pair) bool {
	exp, ok, _ := p.candidate.unverified().seconds("exp")
	return ok && exp <= v.now().Unix()
}

// truthy reports whether JavaScript takes a JSON value for true.
func truthy(value any) bool {
	switch value := value.(type) {
	case nil:
		return false
	case bool:
		return value
	case string:
		return value != ""
	case json.Number:
		f, err := value.Float64()
		return err != nil || f != 0
	default:
		return true
	}
}
