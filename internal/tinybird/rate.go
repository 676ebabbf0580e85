package tinybird

import (
	"errors"
	"fmt"
	"strconv"
)

// MaxRPS is the highest rate, and the largest burst, that can be configured.
const MaxRPS = 1_000_000

var errRPS = fmt.Errorf("not a whole number from 1 to %d", MaxRPS)

// RateSpec is a rate as the operator wrote it.
type RateSpec struct {
	RPS   string // requests per second: "50", or text with placeholders that the caller resolves
	Burst int    // requests at once; 0: as many as RPS
}

// CheckRate tells whether r can be used. What placeholders resolve to is for ParseRPS to check, per request.
func CheckRate(r RateSpec) error {
	t, err := ParseTemplate(r.RPS, func(string) error { return nil })
	if err != nil {
		return fmt.Errorf("rate_limit: %w", err)
	}
	if literal, ok := t.Literal(); ok {
		if _, err := ParseRPS(literal); err != nil {
			return fmt.Errorf("rate_limit %s: the requests per second are %w; remove rate_limit for no limit",
				Shown(r.RPS), err)
		}
	}
	if r.Burst < 0 || r.Burst > MaxRPS {
		return errors.New("rate_limit: burst must be a whole number from 1 to " + strconv.Itoa(MaxRPS))
	}
	return nil
}

// ParseRPS reads requests per second: decimal digits, 1 to MaxRPS. Tinybird ignores a limit of 0 or less,
// which makes it no limit, so nothing but a positive number may ever pass.
func ParseRPS(text string) (int, error) {
	n, ok := parseCount(text, MaxRPS)
	if !ok {
		return 0, errRPS
	}
	return n, nil
}

// parseCount reads a whole number from 1 to most, in decimal digits and without a zero before them.
func parseCount(text string, most int) (int, bool) {
	if text == "" || text[0] == '0' {
		return 0, false
	}
	n := 0
	for i := range len(text) {
		if !digit(text[i]) {
			return 0, false
		}
		if n = n*10 + int(text[i]-'0'); n > most {
			return 0, false
		}
	}
	return n, true
}

func copyRate(r *RateSpec) *RateSpec {
	if r == nil {
		return nil
	}
	c := *r
	return &c
}
