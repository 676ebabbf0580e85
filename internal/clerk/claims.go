package clerk

import (
	"encoding/json"
	"math"
	"strconv"
)

// claims of a token by their exact names, numbers as json.Number.
type claims map[string]any

// text returns a claim that is a string.
func (c claims) text(name string) (string, bool) {
	s, ok := c[name].(string)
	return s, ok
}

// seconds returns a claim that is a date: seconds since 1970, fractions dropped as the SDK does. There are
// three outcomes: a date, absent (no error), and there but no date (error).
func (c claims) seconds(name string) (at int64, ok bool, f *failure) {
	value, ok := c[name]
	if !ok {
		return 0, false, nil
	}
	n, isNumber := value.(json.Number)
	if !isNumber {
		return 0, false, failDates
	}
	if at, ok = wholeSeconds(n); !ok {
		return 0, false, failDates
	}
	return at, true, nil
}

// maxSeconds is the last second of the year 9999. Nothing later is a date: the SDK takes exp 1e20 for never.
const maxSeconds = 253402300799

// wholeSeconds never makes a number larger than it is, and its effort does not depend on the exponent.
func wholeSeconds(n json.Number) (int64, bool) {
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(string(n), 64)
		if err != nil || math.Abs(f) > maxSeconds {
			return 0, false
		}
		i = int64(f)
	}
	return i, -maxSeconds <= i && i <= maxSeconds
}
