package devstack

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Engine answers pipes with a database, in the place of their Run.
type Engine interface {
	// Query returns what the database writes in the format that was asked for, byte for byte. An error that is the
	// question's fault is a *QueryError.
	Query(ctx context.Context, q Question) ([]byte, error)
}

// Question is one call of a pipe, or SQL.
type Question struct {
	Pipe   string            // by its name; "" for SQL that has no pipe
	Params map[string]string // as given: an engine decides what they have to be
	SQL    string            // a statement over the pipe's result, which it knows as "_"; "" is the pipe's result itself
	Format string            // ClickHouse's name of a format: "JSONEachRow"
}

// QueryError is a refusal of an Engine.
type QueryError struct {
	Status int
	Code   int // ClickHouse's number of the error; 0 for one of the template
	Text   string
}

func (e *QueryError) Error() string { return e.Text }

// engineFormats are the ClickHouse formats behind the endings of a pipe's path.
var engineFormats = map[string]string{
	"json": "JSON", "csv": "CSV", "csvwithnames": "CSVWithNames", "ndjson": "JSONEachRow", "parquet": "Parquet",
	"prometheus": "Prometheus", "tsv": "TabSeparated",
}

// ask lets the engine answer. The endings are those of engineFormats.
func (a *API) ask(in *input, q Question, ext string, out *answer) *refusal {
	q.Format = engineFormats[ext]
	body, err := a.engine.Query(in.r.Context(), q)
	if e, ok := errors.AsType[*QueryError](err); ok {
		r := &refusal{status: e.Status, text: e.Text, doc: docQuery}
		if e.Code != 0 {
			r.text = "[Error] " + e.Text
			r.header = map[string]string{"X-DB-Exception-Code": strconv.Itoa(e.Code)}
		}
		return r
	}
	if err != nil {
		return &refusal{status: http.StatusInternalServerError, text: err.Error()}
	}
	out.header.Set("Content-Type", a.contentType(ext))
	out.body = body
	return nil
}

func (a *API) contentType(ext string) string {
	if fm, ok := a.formats[ext]; ok {
		return fm.contentType
	}
	return tsvType
}

var formatClause = regexp.MustCompile(`(?i)\s+FORMAT\s+(\w+)\s*;?\s*$`)

// askSQL answers SQL. As without an engine nothing limits it, least of all to a tenant: fixed parameters do not hold, and any
// table can be read.
func (a *API) askSQL(in *input, pipe, ext string, out *answer) *refusal {
	statement := in.sql
	if ext == "" {
		ext = "tsv"
		if m := formatClause.FindStringSubmatch(statement); m != nil {
			statement = strings.TrimSuffix(statement, m[0])
			for e, name := range engineFormats {
				if strings.EqualFold(name, m[1]) {
					ext = e
				}
			}
		}
	}
	return a.ask(in, Question{Pipe: pipe, SQL: statement, Params: a.merge(in, nil)}, ext, out)
}
