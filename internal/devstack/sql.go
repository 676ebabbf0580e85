package devstack

import (
	"strings"
)

// sql answers /v0/sql, and SQL in the parameter q or in the body of a pipe's endpoint. Tinybird lets any token
// that reads a pipe do the latter and does not say whether fixed parameters still hold then, so here they do not:
// the answer is made of the rows of all tenants, to be noticed when an edge lets SQL through. Of the statement only
// its verb and count() are understood.
func (a *API) sql(in *input, who caller, ext string, out *answer) *refusal {
	if !who.admin && len(who.scopes) == 0 {
		return &refusal{status: 403, text: "invalid authentication token", doc: docAuth}
	}
	if !isSQL(in.sql) {
		return badQuery("[Error] Only SELECT or DESCRIBE queries are supported. Got: %s", in.sql)
	}
	rows := a.rows.at(a.now())
	res := Result{RowsRead: len(rows)}
	if strings.Contains(strings.ToLower(in.sql), "count(") {
		res.Columns = []Column{{"count()", "UInt64"}}
		res.Rows = [][]any{{uint64(len(rows))}}
	} else {
		res.Columns = []Column{
			{"organization_id", "String"},
			{"user_id", "String"},
			{"team_id", "String"},
			{"ts", "DateTime"},
			{"path", "String"},
			{"amount", "Float64"},
			{"country", "String"},
		}
		for _, r := range rows[len(rows)-min(len(rows), 100):] {
			res.Rows = append(res.Rows, []any{
				r.OrganizationID, r.UserID, r.TeamID, r.TS, r.Path, amount(r.AmountCents), r.Country,
			})
		}
	}
	if ext == "" {
		ext = "tsv"
		if strings.HasSuffix(strings.ToUpper(strings.TrimSpace(in.sql)), "FORMAT JSON") {
			ext = "json"
		}
	}
	fm, ok := a.formats[ext]
	if !ok {
		fm = format{"text/tab-separated-values; charset=UTF-8", "TabSeparated", encodeTSV}
	}
	return write(res, fm, out)
}

func encodeTSV(res Result) ([]byte, error) {
	var b strings.Builder
	for _, row := range res.Rows {
		for n, c := range res.Columns {
			if n > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(cellText(row[n], c.Type))
		}
		b.WriteByte('\n')
	}
	return []byte(b.String()), nil
}
