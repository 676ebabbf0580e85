package tinybird

import "strings"

const pathPrefix = "/v0/pipes/"

// ParsePath reads the path of a request for a pipe: exactly /v0/pipes/<name>.<format>, where format is
// lower-case letters. It takes the path as it was sent (url.URL.EscapedPath), and an escape, an empty or
// dotted segment or anything else that could be read in two ways is not such a path.
func ParsePath(escapedPath string) (pipe, format string, ok bool) {
	rest, ok := strings.CutPrefix(escapedPath, pathPrefix)
	if !ok {
		return "", "", false
	}
	// Neither part can hold a dot, so where it is cut does not matter.
	pipe, format, ok = strings.Cut(rest, ".")
	if !ok || !validName(pipe) || !validFormat(format) {
		return "", "", false
	}
	return pipe, format, true
}

func validFormat(format string) bool {
	const longest = 32
	if format == "" || len(format) > longest {
		return false
	}
	for i := range len(format) {
		if format[i] < 'a' || format[i] > 'z' {
			return false
		}
	}
	return true
}
