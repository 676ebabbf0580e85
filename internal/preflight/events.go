package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ingest"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tbapi"
)

// events checks a data source that clients may send rows to, and what they are sent with. No row is sent.
func (r *run) events(ctx context.Context, w *workspace, e ingest.SourceInfo, why string) {
	switch {
	case e.Token == string(w.Key.Bytes):
		r.warn(CheckEvents, e.Name, "append_token is the signing key, which can do everything in the workspace",
			"Make a token in Tinybird that can only append to "+e.Name+".")
	case why != "":
		r.skip(CheckEvents, e.Name, why)
	default:
		r.o.Step("the data source " + e.Name)
		if r.datasource(ctx, w, e.Name, e.Fields) {
			r.appendToken(ctx, w, e.Name, e.Token)
		}
	}
}

func (r *run) datasource(ctx context.Context, w *workspace, name string, fields []string) bool {
	d, err := w.api.Datasource(ctx, name)
	switch {
	case errors.Is(err, tbapi.ErrNoDatasource):
		r.fail(CheckEvents, name, "the workspace has no data source of this name", "Correct the name, or deploy the data source.")
		return false
	case errors.Is(err, tbapi.ErrLimited):
		r.warn(CheckEvents, name, "it was not found out whether there is such a data source: "+err.Error(), fixLimited)
		return false
	case err != nil:
		r.warn(CheckEvents, name, "it was not found out whether there is such a data source: "+err.Error(), "")
		return false
	}
	if len(d.Columns) == 0 {
		return true
	}
	var missing []string
	for _, f := range fields {
		if !slices.Contains(d.Columns, f) {
			missing = append(missing, f)
		}
	}
	if len(missing) > 0 {
		r.warn(CheckEvents, name, "it has no column "+list(missing)+", with which rows are stamped",
			"Add the column, or name the stamp as the column is named. Otherwise it is not known whose a row is.")
	}
	return true
}

func (r *run) appendToken(ctx context.Context, w *workspace, name, token string) {
	tokens, err := w.list(ctx)
	if err != nil {
		r.skip(CheckEvents, name, "whether append_token is good was not found out: "+err.Error())
		return
	}
	found, ok := tokens.Find(token)
	if !ok {
		r.fail(CheckEvents, name, "append_token is none of the workspace's tokens", "Copy the token again, or make one that can append to "+name+".")
		return
	}
	var appends bool
	var more []string
	for _, s := range found.Scopes {
		switch {
		case s.Type == "DATASOURCES:APPEND" && s.Resource == name:
			appends = true
		case s.Type == "DATASOURCES:APPEND": // to what other blocks of the config may list
		case s.Type == "ADMIN":
			appends = true
			fallthrough
		default:
			more = append(more, s.String())
		}
	}
	switch {
	case !appends:
		r.fail(CheckEvents, name, fmt.Sprintf("append_token (%q) may not append to it", found.Name), "Give the token the scope DATASOURCES:APPEND for "+name+".")
	case len(more) > 0:
		r.warn(CheckEvents, name, fmt.Sprintf("append_token (%q) can do more than append: %s", found.Name, list(more)), "Make a token that can only append to "+name+".")
	default:
		r.pass(CheckEvents, name, fmt.Sprintf("append_token (%q) may append to it, and nothing else", found.Name))
	}
}
