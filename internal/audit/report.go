package audit

// Code says what a check found. Codes are part of the interface: programs compare them.
type Code string

// The codes of checks that fail or prove nothing.
const (
	CodeMissing      Code = "pipe_missing"       // the workspace has no such pipe, or it has no endpoint
	CodeUnused       Code = "param_unused"       // no node uses the fixed parameter
	CodeNotFiltered  Code = "not_filtered"       // something is read without the fixed parameter
	CodeSomeBranches Code = "some_branches"      // it is, in some branches of the template
	CodeWeakened     Code = "filter_weakened"    // an OR lets other rows through
	CodeNotEquality  Code = "not_equality"       // the comparison is none that selects one tenant
	CodeOverridden   Code = "param_overridden"   // the template gives it another value
	CodeDefault      Code = "param_has_default"  // a call without it reads the default's rows
	CodeNotRequired  Code = "param_not_required" // it is not marked required=True
	CodeNotProven    Code = "not_proven"         // the SQL is beyond what the audit understands
	CodeRows         Code = "rows_for_nobody"    // a tenant that does not exist reads rows
	CodeOptional     Code = "readable_without"   // a call without the fixed parameters is answered
	CodeForeign      Code = "foreign_rows"       // a tenant reads rows of another
	CodeUnclear      Code = "not_checked"        // the check could not be made
)

// Status is how a check ended.
type Status string

// The statuses of checks.
const (
	Pass     Status = "pass"
	Fail     Status = "fail"
	Unproven Status = "unproven" // neither proven nor refuted; a failure unless it is allowed
	Skip     Status = "skip"     // there was nothing to check, or nothing to check it with
)

// The names of the checks.
const (
	checkDefinition = "definition"        // the SQL restricts by the parameter and requires it
	checkNobody     = "unknown_tenant"    // a tenant that does not exist reads no row
	checkBranches   = "client_parameters" // nor with the parameters that open branches
	checkWithout    = "without_parameters"
	checkTenants    = "tenants"
)

// Check is the outcome of one check of one pipe.
type Check struct {
	Check   string `json:"check"`
	Status  Status `json:"status"`
	Code    Code   `json:"code,omitempty"`
	Param   string `json:"param,omitempty"`  // the fixed parameter
	Node    string `json:"node,omitempty"`   // where in the pipe
	Branch  string `json:"branch,omitempty"` // the way through the template, in words
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// PipeReport is the outcome for one pipe.
type PipeReport struct {
	Pipe        string   `json:"pipe"`
	OK          bool     `json:"ok"`
	FixedParams []string `json:"fixed_params"`
	Checks      []Check  `json:"checks"`
}

// SiteReport is the outcome for one handler of a config.
type SiteReport struct {
	Hosts       []string     `json:"hosts"` // empty: whatever host
	Upstream    string       `json:"upstream"`
	WorkspaceID string       `json:"workspace_id"`
	OK          bool         `json:"ok"`
	Pipes       []PipeReport `json:"pipes"`
	Notes       []string     `json:"notes,omitempty"` // what there is beside pipes, which was not looked at
}

// Report is the outcome for a config.
type Report struct {
	OK       bool         `json:"ok"`
	Failed   int          `json:"failed"`   // checks
	Unproven int          `json:"unproven"` // checks
	Passed   int          `json:"passed"`   // checks
	Skipped  int          `json:"skipped"`  // checks
	Sites    []SiteReport `json:"sites"`
}

// Add counts the outcome for another handler.
func (r *Report) Add(s SiteReport) {
	if len(r.Sites) == 0 {
		r.OK = true
	}
	r.OK = r.OK && s.OK
	r.Sites = append(r.Sites, s)
	for _, p := range s.Pipes {
		for _, c := range p.Checks {
			switch c.Status {
			case Pass:
				r.Passed++
			case Fail:
				r.Failed++
			case Unproven:
				r.Unproven++
			case Skip:
				r.Skipped++
			}
		}
	}
}

// fixes say what to do, by code.
var fixes = map[Code]string{
	CodeMissing:      "Publish the pipe as an endpoint, or take it out of the config.",
	CodeUnused:       "Filter by it in every node that reads a data source: WHERE <column> = {{String(%s, required=True)}}.",
	CodeNotFiltered:  "Filter by it there: WHERE <column> = {{String(%s, required=True)}}.",
	CodeSomeBranches: "Move the filter out of the condition, so that it stands in every branch.",
	CodeWeakened:     "Put the OR in parentheses, beside the filter: WHERE <column> = {{String(%s, required=True)}} AND (... OR ...).",
	CodeNotEquality:  "Compare by equality: <column> = {{String(%s, required=True)}}.",
	CodeOverridden:   "Give the template's own variable another name.",
	CodeDefault:      "Remove the default: {{String(%s, required=True)}}.",
	CodeNotRequired:  "Write {{String(%s, required=True)}}.",
	CodeNotProven: "Write the filter as a condition of its own, WHERE <column> = {{String(%s, required=True)}}, in the node that reads the data source. " +
		"If you have checked the SQL yourself: --allow-unproven.",
	CodeRows:     "Look at the pipe's SQL: some of what it returns is not filtered.",
	CodeOptional: "Mark the parameters required=True, and filter outside of `if defined`.",
	CodeForeign:  "Look at the pipe's SQL: it returns rows of a tenant that the token does not name.",
}
