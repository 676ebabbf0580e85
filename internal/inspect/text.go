package inspect

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WriteText writes the report in sentences.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	b.WriteString(r.What + ".\n")
	for _, n := range r.Notes {
		b.WriteString(string(n) + "\n")
	}
	facts := slices.Concat(r.who(), r.tinybird(), r.when(), r.how())
	if len(facts) > 0 {
		b.WriteString("\n" + strings.Join(facts, "\n") + "\n")
	}
	for i := range r.Sites {
		r.Sites[i].text(&b)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// who is whom the token speaks for.
func (r *Report) who() []string {
	var s []string
	switch {
	case r.User != "" && r.Session != "":
		s = append(s, "It speaks for the user "+r.User+", in the session "+r.Session+".")
	case r.User != "":
		s = append(s, "It speaks for the user "+r.User+".")
	case r.Session != "":
		s = append(s, "It names the session "+r.Session+", and no user.")
	case r.Subject != "":
		s = append(s, "It speaks for "+r.Subject+".")
	}
	if r.Impersonator != "" {
		s = append(s, "It is "+r.Impersonator+" who acts as that user (impersonation).")
	}
	switch r.SessionStatus {
	case "", "active":
	case "pending":
		s = append(s, "The session is pending: a task, such as choosing an organization, is not finished.")
	default:
		s = append(s, "The session's status is "+r.SessionStatus+".")
	}
	switch {
	case r.Organization != nil:
		s = append(s, r.Organization.sentence())
	case r.Kind == KindSession:
		s = append(s, "No organization is active.")
	}
	if r.Plan != "" {
		s = append(s, "The plan is "+r.Plan+".")
	}
	if len(r.Features) > 0 {
		s = append(s, "Features: "+strings.Join(r.Features, ", ")+".")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
		s = append(s, "The claim "+name+" is "+asText(r.Claims[name])+".")
	}
	return s
}

func (o *Organization) sentence() string {
	text := "The active organization is " + o.ID
	if o.Slug != "" {
		text += " (" + o.Slug + ")"
	}
	if o.Role != "" {
		text += ", with the role " + o.Role
	}
	if len(o.Permissions) > 0 {
		text += " and the permissions " + strings.Join(o.Permissions, ", ")
	}
	return text + "."
}

// tinybird is what a token of Tinybird's says.
func (r *Report) tinybird() []string {
	t := r.Tinybird
	if t == nil {
		return nil
	}
	var s []string
	if t.WorkspaceID != "" {
		text := "The workspace is " + t.WorkspaceID
		if r.Kind == KindTinybirdStatic {
			text += ", unless it is a user's own token: then that is the user's id"
		}
		s = append(s, text+".")
	}
	if t.Region != "" {
		at := ", whose address is not known here"
		if t.API != "" {
			at = ", at " + t.API
		}
		s = append(s, "The region is "+t.Region+at+".")
	}
	if t.Name != "" {
		rate := "there is no limit in the token"
		if t.RPS != "" {
			rate = t.RPS + " requests a second are allowed"
		}
		s = append(s, "Requests are counted under "+t.Name+"; "+rate+".")
	}
	for _, scope := range t.Scopes {
		text := scope.Type + " " + scope.Resource
		switch {
		case len(scope.FixedParams) > 0:
			var fixed []string
			for _, name := range slices.Sorted(maps.Keys(scope.FixedParams)) {
				text := name + " = " + asText(scope.FixedParams[name])
				if scope.FixedParams[name] == nil {
					text += " (which a pipe may take for no filter)"
				}
				fixed = append(fixed, text)
			}
			text += ", fixed to " + strings.Join(fixed, ", ")
		case scope.Filter != "":
			text += ", where " + scope.Filter
		case scope.Type == "PIPES:READ":
			text += ", fixed to nothing: all that the pipe returns"
		}
		s = append(s, "It allows "+text+".")
	}
	return s
}

// when is how long the token lives.
func (r *Report) when() []string {
	var parts []string
	if r.IssuedAt != nil {
		verb := "was issued "
		if r.IssuedAt.After(r.now) {
			verb = "says it was issued "
		}
		parts = append(parts, verb+r.moment(*r.IssuedAt))
	}
	if r.NotBefore != nil && r.NotBefore.After(r.now) {
		parts = append(parts, "becomes valid "+r.moment(*r.NotBefore))
	}
	switch {
	case r.ExpiresAt == nil && r.Kind != KindHandshake && r.Signature != nil:
		parts = append(parts, "has no expiry, without which it is refused everywhere")
	case r.ExpiresAt == nil:
	case r.Expired:
		parts = append(parts, "expired "+r.moment(*r.ExpiresAt))
	default:
		parts = append(parts, "expires "+r.moment(*r.ExpiresAt))
	}
	if len(parts) == 0 {
		return nil
	}
	text := "It " + strings.Join(parts, ", and ") + "."
	if r.ExpiresAt != nil && !r.Expired {
		text += " Until then it is a credential: show it to nobody."
	}
	return []string{text}
}

// how is who made the token, and whether that is so.
func (r *Report) how() []string {
	var s []string
	if r.Issuer != "" && r.Kind != KindPublishableKey {
		s = append(s, "Its issuer is "+r.Issuer+".")
	}
	if r.AuthorizedParty != "" {
		s = append(s, "It was obtained by "+r.AuthorizedParty+".")
	} else if r.Kind == KindSession {
		s = append(s, "It does not say by which site it was obtained (no azp).")
	}
	if r.Signature == nil {
		return s
	}
	by := "It is signed by " + r.Algorithm
	if r.Algorithm == "" {
		by = "It does not say how it is signed"
	} else if r.KeyID != "" {
		by += " with the key " + r.KeyID
	}
	switch r.Signature.Status {
	case Valid:
		by += ", and the signature is right: by " + r.Signature.By
	case Invalid:
		by += ", and the signature is WRONG: " + r.Signature.Why
	case UnknownKey:
		by += ", and the signature cannot be right here: " + r.Signature.Why
	case NotChecked:
		by += ". The signature was not checked: " + r.Signature.Why
	}
	return append(s, by+".")
}

func (v *Verdict) text(b *strings.Builder) {
	hosts := strings.Join(v.Hosts, ", ")
	if hosts == "" {
		hosts = "any host"
	}
	fmt.Fprintf(b, "\n%s (%s) ", hosts, v.Directive)
	switch {
	case v.Unclear != "":
		b.WriteString("cannot be asked: " + v.Unclear + "\n")
		return
	case v.Refusal != nil:
		fmt.Fprintf(b, "refuses it: %d %s\n", v.Refusal.Status, v.Refusal.Code)
		v.Refusal.text(b, "  ")
		return
	}
	b.WriteString("accepts it")
	var reads []string
	for _, p := range v.Pipes {
		if p.Refusal == nil {
			reads = append(reads, p.Pipe)
		}
	}
	if len(reads) > 0 {
		b.WriteString(", and it reads " + strings.Join(reads, ", "))
	}
	b.WriteString(".\n")
	for _, p := range v.Pipes {
		if p.Refusal != nil {
			fmt.Fprintf(b, "  not %s: %d %s\n", p.Pipe, p.Refusal.Status, p.Refusal.Code)
			p.Refusal.text(b, "    ")
		}
	}
}

func (f *Refusal) text(b *strings.Builder, indent string) {
	b.WriteString(indent + f.Error + "\n")
	if f.Why != "" {
		b.WriteString(indent + "The log says: " + f.Why + "\n")
	}
	b.WriteString(indent + f.Docs + "\n")
}

// moment is a time in words, and as it is.
func (r *Report) moment(at time.Time) string {
	d := r.now.Sub(at)
	said := ago(d.Abs())
	if d < 0 {
		said = "in " + said
	} else {
		said += " ago"
	}
	return said + " (" + at.UTC().Format("2006-01-02 15:04:05 MST") + ")"
}

// ago is a duration in its two largest units.
func ago(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}}
	var parts []string
	for _, u := range units {
		n := int64(d / u.size)
		d %= u.size
		if n == 0 && len(parts) == 0 {
			continue
		}
		if n > 0 {
			text := strconv.FormatInt(n, 10) + " " + u.name
			if n != 1 {
				text += "s"
			}
			parts = append(parts, text)
		}
		if len(parts) == 2 || n == 0 {
			break
		}
	}
	if len(parts) == 0 {
		return "less than a second"
	}
	return strings.Join(parts, " ")
}

// asText is the value of a claim in a sentence.
func asText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	doc, err := json.Marshal(v)
	if err != nil { // what came from JSON can go there
		return "?"
	}
	const longest = 200
	if len(doc) > longest {
		return strings.ToValidUTF8(string(doc[:longest]), "") + "..."
	}
	return string(doc)
}
