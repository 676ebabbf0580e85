package inspect

import (
	"encoding/json"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

const notShown = "(not shown)"

// maxShown is the longest text of a claim that is written, in bytes.
const maxShown = 512

// minMark is the shortest signature that is looked for in what is written. Shorter ones are in every text.
const minMark = 8

// text is a claim that is text, as it can be written: nothing of the token's own signature, of another token or of the terminal's
// control characters. It is empty for every other type.
func (e *explainer) text(v any) string {
	s, ok := v.(string)
	if !ok {
		return ""
	}
	if secret.Looks(s) || len(e.signature) >= minMark && strings.Contains(s, e.signature) || strings.Contains(s, e.token) {
		return notShown
	}
	s = tinybird.Printable(s)
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return s
}

func (e *explainer) texts(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, e.text(s))
	}
	return out
}

// value is any claim as it can be written.
func (e *explainer) value(v any) any {
	switch v := v.(type) {
	case string:
		return e.text(v)
	case json.Number:
		if e.text(v.String()) == notShown || len(v) > maxShown {
			return notShown
		}
		return v
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = e.value(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			out[e.text(name)] = e.value(value)
		}
		return out
	default:
		return v
	}
}
