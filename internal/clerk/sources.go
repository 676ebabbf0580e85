package clerk

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// SourceKind is a place where a session token can be.
type SourceKind string

// The places.
const (
	SourceHeader SourceKind = "header" // Authorization: Bearer
	SourceCookie SourceKind = "cookie" // Clerk's cookies
	SourceQuery  SourceKind = "query"  // a query parameter
)

// Source is a place where the session token is looked for.
type Source struct {
	Kind SourceKind
	Name string // of the query parameter; empty for the others
}

func settleSources(list []Source) (header bool, others []Source, err error) {
	if list == nil {
		return true, []Source{{Kind: SourceCookie}}, nil
	}
	if len(list) == 0 {
		return false, nil, errors.New("token_from: want at least one of header, cookie and query <name>")
	}
	for i, s := range list {
		switch s.Kind {
		case SourceHeader, SourceCookie:
			if s.Name != "" {
				return false, nil, fmt.Errorf("token_from %s takes no name", s.Kind)
			}
		case SourceQuery:
			if s.Name == "" {
				return false, nil, errors.New("token_from query: want the name of the parameter, such as query token")
			}
		default:
			return false, nil, fmt.Errorf("token_from %q: want header, cookie or query <name>", s.Kind)
		}
		if slices.Contains(list[:i], s) {
			return false, nil, fmt.Errorf("token_from lists %s twice", strings.TrimSpace(string(s.Kind)+" "+s.Name))
		}
		if s.Kind == SourceHeader {
			header = true
		} else {
			others = append(others, s)
		}
	}
	return header, others, nil
}

// headerToken reads the Authorization header as the SDK does: the value is split at its first two spaces; a
// single word is the token; after the exact word Bearer the second one is; any other scheme is as if there
// were no header.
func headerToken(h http.Header) (string, *failure) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", failTwoHeaders
	}
	scheme, rest, _ := strings.Cut(strings.Trim(values[0], " \t"), " ")
	token, _, _ := strings.Cut(rest, " ")
	switch {
	case token == "":
		return scheme, nil
	case scheme == "Bearer":
		return token, nil
	default:
		return "", nil
	}
}

// queryToken reads the token from the query. It guesses at nothing: a malformed query, and a token that is
// there twice, are refused.
func queryToken(rawQuery, name string) (string, *failure) {
	token, seen := "", false
	for rawQuery != "" {
		var pair string
		pair, rawQuery, _ = strings.Cut(rawQuery, "&")
		if pair == "" {
			continue
		}
		if strings.Contains(pair, ";") {
			return "", failBrokenQuery
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		n, err := url.QueryUnescape(rawName)
		if err != nil {
			return "", failBrokenQuery
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return "", failBrokenQuery
		}
		if n != name {
			continue
		}
		if seen {
			return "", failTwoInQuery
		}
		token, seen = value, true
	}
	return token, nil
}
