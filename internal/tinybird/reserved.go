package tinybird

import "strings"

// reservedWhy says in errors why a name is reserved.
const reservedWhy = "Tinybird reads token as a credential, q and pipeline as a query, and __tb__... as instructions; __clerk... and __session... are Clerk's credentials"

// reservedPrefixes start the names of Tinybird's own switches, such as __tb__deployment, and of the credentials that
// Clerk puts into URLs, such as __clerk_handshake and __session.
var reservedPrefixes = [...]string{"__tb__", "__clerk", "__session"}

// reserved reports whether a parameter of that name means something to Tinybird other than a value for the
// pipe. How Tinybird compares names is not documented, so letter case is ignored.
func reserved(name string) bool {
	for _, prefix := range reservedPrefixes {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	for _, r := range [...]string{"token", "q", "pipeline"} {
		if strings.EqualFold(name, r) {
			return true
		}
	}
	return false
}
