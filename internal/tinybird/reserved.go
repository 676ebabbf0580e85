package tinybird

import "strings"

// reservedWhy says in errors why a name is reserved.
const reservedWhy = "Tinybird reads token as a credential, q and pipeline as a query, and __tb__... as instructions"

// reservedPrefix starts the names of Tinybird's own switches, such as __tb__deployment.
const reservedPrefix = "__tb__"

// reserved reports whether a parameter of that name means something to Tinybird other than a value for the
// pipe. How Tinybird compares names is not documented, so letter case is ignored.
func reserved(name string) bool {
	if len(name) >= len(reservedPrefix) && strings.EqualFold(name[:len(reservedPrefix)], reservedPrefix) {
		return true
	}
	for _, r := range [...]string{"token", "q", "pipeline"} {
		if strings.EqualFold(name, r) {
			return true
		}
	}
	return false
}
