package audit

import (
	"fmt"
	"io"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

var marks = map[Status]string{Pass: "✓", Fail: "✗", Unproven: "?", Skip: "-"}

// WriteText writes the report for people: a line for each check, and the fix below those that failed.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, s := range r.Sites {
		hosts := strings.Join(s.Hosts, ", ")
		if hosts == "" {
			hosts = "any host"
		}
		fmt.Fprintf(&b, "%s (workspace %s at %s)\n", hosts, s.WorkspaceID, s.Upstream)
		for _, p := range s.Pipes {
			p.text(&b)
		}
		for _, n := range s.Notes {
			b.WriteString("\n  " + tinybird.Printable(n) + "\n")
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s, %d failed, %d not proven, %d skipped\n", plural(r.Passed, "check")+" passed", r.Failed, r.Unproven, r.Skipped)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func (p *PipeReport) text(b *strings.Builder) {
	verdict := "isolated"
	if !p.OK {
		verdict = "NOT isolated"
	}
	if len(p.FixedParams) == 0 {
		verdict = "unrestricted"
	}
	fmt.Fprintf(b, "\n  %s: %s\n", p.Pipe, verdict)
	for _, c := range p.Checks {
		b.WriteString("    " + marks[c.Status] + " " + tinybird.Printable(c.line()) + "\n")
		if c.Fix != "" {
			b.WriteString("      " + c.Fix + "\n")
		}
	}
}

// line is the check in one line, with its code for the documentation.
func (c *Check) line() string {
	var b strings.Builder
	if c.Code != "" && c.Status != Skip {
		b.WriteString(string(c.Code) + ": ")
	}
	if c.Param != "" && c.Check == checkDefinition && c.Status != Pass {
		b.WriteString(c.Param + ": ")
	}
	b.WriteString(c.Message)
	var where []string
	if c.Node != "" {
		where = append(where, "node "+c.Node)
	}
	if c.Branch != "" {
		where = append(where, "where "+c.Branch)
	}
	if len(where) > 0 {
		b.WriteString(" (" + strings.Join(where, ", ") + ")")
	}
	return b.String()
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
