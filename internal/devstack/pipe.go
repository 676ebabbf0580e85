package devstack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParamType is the type of a pipe's parameter, named as in a pipe's template.
type ParamType string

// The types that the pipes use. An array is given comma-separated, or under the same name more than once.
const (
	TypeString ParamType = "String"
	TypeInt32  ParamType = "Int32"
	TypeDate   ParamType = "Date" // 2006-01-02
	TypeArray  ParamType = "Array(String)"
)

// Param is one parameter that a pipe declares.
type Param struct {
	Name     string
	Type     ParamType
	Default  string // "": undefined when not given
	Required bool
}

// Pipe is a pipe with its endpoint. One with neither Run nor Exec has none yet.
type Pipe struct {
	Name   string
	ID     string // "t_...": Tinybird answers under it as well
	Params []Param
	Run    func(q Query) Result

	// Exec, when set, answers in the place of Params and Run: an engine's own bytes, in ClickHouse's format of that name, for the
	// parameters as they were given. Its error is answered 400 with its text, a [*QueryError] with its code, too.
	Exec func(ctx context.Context, params map[string]string, format string) ([]byte, error)
}

// QueryError is ClickHouse's refusal of a query.
type QueryError struct {
	Code int
	Text string
}

func (e *QueryError) Error() string { return e.Text }

// exec has the engine answer.
func (p Pipe) exec(ctx context.Context, params map[string]string, fm format, out *answer) *refusal {
	body, err := p.Exec(ctx, params, fm.clickhouse)
	if err != nil {
		bad := &refusal{status: 400, text: err.Error(), doc: docQuery}
		if q, ok := errors.AsType[*QueryError](err); ok {
			bad.text = "[Error] " + q.Text
			bad.header = map[string]string{"X-DB-Exception-Code": strconv.Itoa(q.Code)}
		}
		return bad
	}
	out.header.Set("Content-Type", fm.contentType)
	out.body = body
	return nil
}

// Column is a name and a ClickHouse type: String, UInt64, Float64, Date, DateTime or Map(String, String).
type Column struct{ Name, Type string }

// Result is what a pipe answers. The values of a row are string, uint64, float64, time.Time or map[string]string,
// as its column's type says.
type Result struct {
	Columns     []Column
	Rows        [][]any
	Limited     bool // a LIMIT was used
	BeforeLimit int  // rows there were before it
	RowsRead    int
}

// Query is one call of a pipe: the rows there are, and the values of the declared parameters.
type Query struct {
	Rows []Row
	args map[string]string
}

// Defined reports whether a parameter was given or has a default.
func (q Query) Defined(name string) bool { _, ok := q.args[name]; return ok }

// String is a parameter's text, "" if it is not defined.
func (q Query) String(name string) string { return q.args[name] }

// Int is the number in an Int32 parameter.
func (q Query) Int(name string) int {
	n, err := strconv.Atoi(q.args[name])
	if err != nil { // checked by bind
		return 0
	}
	return n
}

// List is the elements of an Array(String) parameter.
func (q Query) List(name string) []string {
	if q.args[name] == "" {
		return nil
	}
	return strings.Split(q.args[name], ",")
}

// Date is the day in a Date parameter.
func (q Query) Date(name string) (time.Time, bool) {
	t, err := time.Parse(time.DateOnly, q.args[name])
	return t, err == nil
}

// bind checks the given values against what p declares; a name it does not declare is ignored, as Tinybird does.
func (p Pipe) bind(rows []Row, given map[string]string) (Query, *refusal) {
	q := Query{Rows: rows, args: map[string]string{}}
	var missing []string
	for _, d := range p.Params {
		v, ok := given[d.Name]
		if !ok && d.Default != "" {
			v, ok = d.Default, true
		}
		if !ok {
			if d.Required {
				missing = append(missing, d.Name)
			}
			continue
		}
		if bad := d.check(p.Name, v); bad != nil {
			return Query{}, bad
		}
		q.args[d.Name] = v
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return Query{}, badQuery("Template Syntax Error: Required parameter is not defined. Check the parameters "+
			"%s. Please provide a value or set a default value in the pipe code.", strings.Join(missing, " and "))
	}
	return q, nil
}

func (d Param) check(pipe, v string) *refusal {
	switch d.Type {
	case TypeInt32:
		if _, err := strconv.ParseInt(v, 10, 32); err != nil {
			return badQuery("Template Syntax Error: Error validating '%s' to type Int32", v)
		}
	case TypeDate:
		if _, err := time.Parse(time.DateOnly, v); err != nil {
			r := badQuery("[Error] Cannot parse string '%s' as Date: while processing query: 'SELECT organization_id, "+
				"ts, amount FROM events WHERE toDate(ts) >= toDate('%s')' in pipe %s. (CANNOT_PARSE_TEXT)", v, v, pipe)
			r.header = map[string]string{"X-DB-Exception-Code": "6"}
			return r
		}
	case TypeString, TypeArray:
	}
	return nil
}

func badQuery(format string, args ...any) *refusal {
	return &refusal{status: 400, text: fmt.Sprintf(format, args...), doc: docQuery}
}
