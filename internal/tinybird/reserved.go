package tinybird

import (
	"slices"
	"strings"
)

// reservedWhy says in errors why a name is reserved.
const reservedWhy = "Tinybird reads token as a credential, q and pipeline as a query, and __tb__..., explain, debug and others as instructions; __clerk... and __session... are Clerk's credentials"

// reservedNames are those that Tinybird's own parser of templates refuses as parameters of a pipe (RESERVED_PARAM_NAMES of its command
// line's sql_template.py), because its API reads them. Those of them that only say how an answer is written (output_format_...) or
// filed (tag) are the client's.
var reservedNames = []string{
	"token", "q", "pipeline",
	"debug", "debug_source_tables", "explain", "finalize_aggregations", "playground", "query_id", "release_replacements", "template_parameters",
}

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
	return slices.ContainsFunc(reservedNames, func(r string) bool { return strings.EqualFold(name, r) })
}
