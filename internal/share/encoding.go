package share

import (
	"net/http"
	"strconv"
	"strings"
)

// Encoding is the content coding that Tinybird is asked for.
type Encoding string

// The encodings. Others are not asked for: with two the answers of all browsers are the same.
const (
	Gzip     Encoding = "gzip"
	Identity Encoding = "identity"
)

// covers reports whether a body with the field Content-Encoding may be sent to all who were to get this encoding.
func (e Encoding) covers(field string) bool {
	return field == "" || strings.EqualFold(field, string(Identity)) || e == Gzip && strings.EqualFold(field, string(Gzip))
}

// EncodingFor returns the encoding for a client, by its Accept-Encoding (RFC 9110, section 12.5.3): gzip if it takes that,
// else identity. It is false for a client that takes neither.
func EncodingFor(h http.Header) (Encoding, bool) {
	gzip, identity, others := unsaid, unsaid, unsaid
	for _, line := range h["Accept-Encoding"] {
		for member := range strings.SplitSeq(line, ",") {
			coding, ok := parseCoding(member)
			switch {
			case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"):
				gzip = gzip.also(ok)
			case strings.EqualFold(coding, "identity"):
				identity = identity.also(ok)
			case coding == "*":
				others = others.also(ok)
			}
		}
	}
	switch {
	case gzip == yes, gzip == unsaid && others == yes:
		return Gzip, true
	case identity == no, identity == unsaid && others == no:
		return "", false
	default:
		return Identity, true
	}
}

// taken is what a client says about a coding.
type taken int

const (
	unsaid taken = iota
	yes
	no
)

// also is what is said when it is said twice: no counts.
func (t taken) also(ok bool) taken {
	if !ok || t == no {
		return no
	}
	return yes
}

// parseCoding reads a member such as "gzip;q=0.5", and reports whether it is taken. A weight that is none takes nothing.
func parseCoding(member string) (coding string, ok bool) {
	coding, params, weighted := strings.Cut(member, ";")
	coding = strings.Trim(coding, " \t")
	if !weighted {
		return coding, true
	}
	name, value, _ := strings.Cut(params, "=")
	if !strings.EqualFold(strings.Trim(name, " \t"), "q") {
		return coding, false
	}
	q, err := strconv.ParseFloat(strings.Trim(value, " \t"), 64)
	return coding, err == nil && q > 0 && q <= 1
}
