package tinybird

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/jsonobject"
)

// scopePipesRead lets a token read a pipe's endpoint. Tinybird's documents also say "PIPE:READ" in places;
// this is the spelling that works.
const scopePipesRead = "PIPES:READ"

// claims is the payload of a Tinybird JWT, members in the order they are written in.
type claims struct {
	jwt.RegisteredClaims `json:"-"` // for the methods only: nothing of it is written

	WorkspaceID string  `json:"workspace_id"`
	Name        string  `json:"name"`
	Expires     int64   `json:"exp"` // Unix seconds
	Scopes      []scope `json:"scopes"`
	Limits      *limits `json:"limits,omitempty"`
}

var _ jwt.Claims = claims{}

type scope struct {
	Type        string      `json:"type"`
	Resource    string      `json:"resource"`
	FixedParams fixedParams `json:"fixed_params,omitempty"`
}

type limits struct {
	RPS int `json:"rps"`
}

// fixedParams is written as an object with its members in this order.
type fixedParams []FixedValue

// MarshalJSON implements json.Marshaler.
func (f fixedParams) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, v := range f {
		value, err := json.Marshal(v.Value)
		if err != nil {
			return nil, fmt.Errorf("fixed parameter %s: %w", v.Name, err)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(jsonobject.AppendString(b, v.Name), ':')
		b = append(b, value...)
	}
	return append(b, '}'), nil
}

var (
	errGrant      = errors.New("the grant names no pipe or no token name")
	errGrantOrder = errors.New("the grants are not sorted by pipe, or one pipe is granted twice")
	errGrantFixed = errors.New("the grant's fixed parameters are not sorted by name, or a name or value is not usable")
	errGrantRate  = errors.New("the grant has a limit, so its rate must be from 1 to " + strconv.Itoa(MaxRPS))
)

// checkGrants is the last look at what gets signed. Authorize makes no such grants; this holds for grants
// from anywhere.
func checkGrants(name string, rps int, grants []*Grant) error {
	if len(grants) == 0 || checkTokenName(name) != nil {
		return errGrant
	}
	last := ""
	for _, g := range grants {
		if g == nil || !validName(g.Pipe) {
			return errGrant
		}
		// Which of two scopes for one pipe counts is not documented.
		if g.Pipe <= last {
			return errGrantOrder
		}
		last = g.Pipe
		// Tinybird takes a limit of 0 or less for none.
		if rps < 0 || rps > MaxRPS || rps == 0 && g.Rate != nil {
			return errGrantRate
		}
		if err := checkGrantFixed(g.Fixed); err != nil {
			return err
		}
	}
	return nil
}

func checkGrantFixed(fixed []FixedValue) error {
	for i, f := range fixed {
		if !validName(f.Name) || reserved(f.Name) || i > 0 && fixed[i-1].Name >= f.Name {
			return errGrantFixed
		}
		switch v := f.Value.(type) {
		case string, json.Number, bool:
			if _, err := scalarText(v); err != nil {
				return errGrantFixed
			}
		default:
			return errGrantFixed
		}
	}
	return nil
}

// checkTokenName tells whether name can be a token's: see nameAtTinybird.
func checkTokenName(name string) error {
	switch {
	case name == "":
		return errEmpty
	case len(name) > maxValue+2+maxName:
		return errTooLong
	default:
		return checkRunes(name)
	}
}

// cacheKey stands for what a token says, but for when it expires and for whose workspace.
type cacheKey [sha256.Size]byte

// cacheKeyOf returns the digest of a text that no two different tokens share: every part of it is preceded by its length.
func cacheKeyOf(name string, rps int, grants []*Grant) cacheKey {
	var room [512]byte
	b := strconv.AppendInt(room[:0], int64(rps), 10)
	b = appendSized(b, 'n', name)
	for _, g := range grants {
		b = appendGrant(b, g)
	}
	return sha256.Sum256(b)
}

// appendGrant appends what a scope says.
func appendGrant(b []byte, g *Grant) []byte {
	b = appendSized(b, 'p', g.Pipe)
	for _, f := range g.Fixed {
		b = appendSized(b, 'f', f.Name)
		switch v := f.Value.(type) {
		case string:
			b = appendSized(b, 's', v)
		case json.Number:
			b = appendSized(b, 'd', string(v))
		case bool:
			b = appendSized(b, 'b', strconv.FormatBool(v))
		}
	}
	return b
}

func appendSized[T string | ~[]byte](b []byte, kind byte, text T) []byte {
	b = append(b, kind)
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, ':')
	return append(b, text...)
}
