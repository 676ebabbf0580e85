package preflight

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// Status is how a check ended.
type Status string

// The statuses of checks.
const (
	Pass Status = "pass"
	Warn Status = "warn" // it works, and something about it is not as it should be
	Fail Status = "fail" // requests would be refused
	Skip Status = "skip" // it was not looked at
)

// The names of the checks. They are part of the interface: programs compare them.
const (
	CheckConfig            = "config"
	CheckPublishableKey    = "publishable_key"
	CheckIssuer            = "issuer"
	CheckKeys              = "keys"
	CheckSecretKey         = "secret_key"
	CheckAuthorizedParties = "authorized_parties"
	CheckSigningKey        = "signing_key"
	CheckUpstream          = "upstream"
	CheckMintedToken       = "minted_token"
	CheckPipe              = "pipe"
	CheckEvents            = "events"
	CheckSharedLimit       = "shared_limit"
	CheckClock             = "clock"
	CheckLiteralSecret     = "literal_secret"
	CheckSettings          = "settings"
)

// Check is the outcome of one check.
type Check struct {
	Check   string `json:"check"`
	Subject string `json:"subject,omitempty"` // the pipe, data source or address
	Status  Status `json:"status"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// SiteReport is the outcome for one site of a config.
type SiteReport struct {
	Hosts  []string `json:"hosts"` // empty: whatever host
	Checks []Check  `json:"checks"`
}

// Report is the outcome for a config.
type Report struct {
	OK      bool         `json:"ok"` // nothing failed, nor warned if that counts
	Failed  int          `json:"failed"`
	Warned  int          `json:"warned"`
	Passed  int          `json:"passed"`
	Skipped int          `json:"skipped"`
	Checks  []Check      `json:"checks"` // of the whole config
	Sites   []SiteReport `json:"sites"`
}

// Count sums up the checks. With strict a warning counts as a failure.
func (r *Report) Count(strict bool) {
	r.Failed, r.Warned, r.Passed, r.Skipped = 0, 0, 0, 0
	r.count(r.Checks)
	for _, s := range r.Sites {
		r.count(s.Checks)
	}
	r.OK = r.Failed == 0 && (r.Warned == 0 || !strict)
}

func (r *Report) count(checks []Check) {
	for _, c := range checks {
		switch c.Status {
		case Pass:
			r.Passed++
		case Warn:
			r.Warned++
		case Fail:
			r.Failed++
		case Skip:
			r.Skipped++
		}
	}
}

// Style is how a report is written.
type Style struct {
	Marks bool // ✓ ! ✗ in the place of words
	Color bool // by the escape codes of terminals
}

var words = map[Status]string{Pass: "ok   ", Warn: "warn ", Fail: "FAIL ", Skip: "skip "}

var marks = map[Status]string{Pass: "✓ ", Warn: "! ", Fail: "✗ ", Skip: "- "}

var colors = map[Status]string{Pass: "32", Warn: "33", Fail: "31", Skip: "2"}

func (s Style) mark(status Status) string {
	mark := words[status]
	if s.Marks {
		mark = marks[status]
	}
	if s.Color {
		return "\x1b[" + colors[status] + "m" + mark + "\x1b[0m"
	}
	return mark
}

// margin is as wide as a mark.
func (s Style) margin() string {
	if s.Marks {
		return "  "
	}
	return "     "
}

// WriteText writes the report for people: a line for each check, and the fix below those that need one.
func (r *Report) WriteText(w io.Writer, s Style) error {
	var b strings.Builder
	for i := range r.Checks {
		r.Checks[i].text(&b, s, "")
	}
	for _, site := range r.Sites {
		hosts := strings.Join(site.Hosts, ", ")
		if hosts == "" {
			hosts = "any host"
		}
		b.WriteString("\n" + hosts + "\n")
		for i := range site.Checks {
			site.Checks[i].text(&b, s, "  ")
		}
	}
	fmt.Fprintf(&b, "\n%s passed, %s, %d failed, %d skipped\n", plural(r.Passed, "check"), plural(r.Warned, "warning"), r.Failed, r.Skipped)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

func (c *Check) text(b *strings.Builder, s Style, indent string) {
	b.WriteString(indent + s.mark(c.Status) + c.Check)
	if c.Subject != "" {
		b.WriteString(" " + tinybird.Printable(c.Subject))
	}
	b.WriteString(": " + tinybird.Printable(c.Message) + "\n")
	if c.Fix != "" {
		b.WriteString(indent + s.margin() + c.Fix + "\n")
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}
