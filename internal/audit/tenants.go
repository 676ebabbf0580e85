package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tbapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// tenants reads the pipe as each tenant that was given.
func (a *auditor) tenants(ctx context.Context, p tinybird.PipeInfo) ([]Check, error) {
	var checks []Check
	for _, t := range a.Tenants {
		fixed, missing, err := t.values(p)
		switch {
		case err != nil:
			return nil, err
		case missing != "":
			checks = append(checks, Check{
				Check: checkTenants, Status: Skip, Code: CodeUnclear, Param: missing,
				Message: "no value of " + missing + " was given for " + t.name(), Fix: "Name it: --tenant " + example(p) + ".",
			})
			continue
		}
		more, err := a.tenant(ctx, p, t, fixed)
		if err != nil {
			return nil, err
		}
		checks = append(checks, more...)
	}
	return checks, nil
}

// values are the fixed parameters' values for the tenant; missing is one that it has none of.
func (t Tenant) values(p tinybird.PipeInfo) (fixed []tinybird.FixedValue, missing string, err error) {
	own := 0
	for _, f := range p.Fixed {
		if f.Literal == nil {
			own++
		}
	}
	for _, f := range p.Fixed {
		value := f.Literal
		if value == nil {
			text, ok := t[f.Name]
			if !ok && own == 1 {
				text, ok = t[""]
			}
			if !ok {
				return nil, f.Name, nil
			}
			if value, err = tinybird.TypedValue(text, f.Type); err != nil {
				return nil, "", fmt.Errorf("--tenant: %s: %w", f.Name, err)
			}
		}
		fixed = append(fixed, tinybird.FixedValue{Name: f.Name, Value: value})
	}
	return fixed, "", nil
}

func (t Tenant) name() string {
	if only, ok := t[""]; ok {
		return only
	}
	parts := make([]string, 0, len(t))
	for name, value := range t {
		parts = append(parts, name+"="+value)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func example(p tinybird.PipeInfo) string {
	var parts []string
	for _, f := range p.Fixed {
		if f.Literal == nil {
			parts = append(parts, f.Name+"=<value>")
		}
	}
	return strings.Join(parts, ",")
}

// tenant holds that all rows of one tenant carry its own values, which also means that no two tenants share one, and that with
// one of its values replaced by nobody's there are none.
func (a *auditor) tenant(ctx context.Context, p tinybird.PipeInfo, t Tenant, fixed []tinybird.FixedValue) ([]Check, error) {
	token, err := a.mint(p.Name, fixed)
	if err != nil {
		return nil, err
	}
	r, status, err := a.client.Read(ctx, p.Name, token, nil)
	switch {
	case errors.Is(err, tbapi.ErrTooBig):
		return []Check{{
			Check: checkTenants, Status: Unproven, Code: CodeUnclear, Message: t.name() + " reads more than can be looked at",
			Fix: "Give the pipe a LIMIT, or choose a smaller tenant.",
		}}, nil
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		c, err := a.refused(checkTenants, status, "asked as "+t.name())
		return []Check{c}, err
	}
	var checks []Check
	for i, f := range p.Fixed {
		if f.Literal == nil {
			checks = append(checks, a.compare(p, t, f, fixed[i].Value, r))
		}
	}
	swapped, err := a.swapped(ctx, p, t, fixed)
	return append(checks, swapped...), err
}

// compare looks at the column of one fixed parameter.
func (a *auditor) compare(p tinybird.PipeInfo, t Tenant, f tinybird.FixedInfo, own any, r *tbapi.Rows) Check {
	name := f.Name
	if c, ok := a.Columns[f.Name]; ok {
		name = c
	} else if c, ok := a.Columns[""]; ok && len(p.Fixed) == 1 {
		name = c
	}
	out := Check{Check: checkTenants, Param: f.Name, Status: Skip, Code: CodeUnclear}
	column, ok := r.Column(name)
	switch {
	case len(r.Data) == 0:
		out.Message = t.name() + " reads no rows, so there was nothing to compare"
		return out
	case !ok:
		out.Message = "no column " + name + " is returned, so whose the " + strconv.Itoa(len(r.Data)) + " rows are cannot be seen"
		return out
	}
	foreign := 0
	for _, row := range r.Data {
		if !ownValue(row[column], own) {
			foreign++
		}
	}
	if foreign > 0 {
		return failed(checkTenants, CodeForeign, f.Name, fmt.Sprintf("%d of the %d rows that %s reads have another %s", foreign, len(r.Data), t.name(), column))
	}
	return Check{Check: checkTenants, Status: Pass, Param: f.Name, Message: fmt.Sprintf("all %d rows of %s have its own %s", len(r.Data), t.name(), column)}
}

// ownValue compares a cell with a fixed value; a text with commas is a list, and any of its elements will do.
func ownValue(cell, own any) bool {
	text := cellText(cell)
	want := cellText(own)
	if text == want {
		return true
	}
	if _, ok := own.(string); !ok {
		a, errA := json.Number(text).Float64()
		b, errB := json.Number(want).Float64()
		return errA == nil && errB == nil && a == b && text != "" && len(want) < 16
	}
	return strings.Contains(want, ",") && slices.Contains(strings.Split(want, ","), text)
}

func cellText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return string(v)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// swapped reads with each of several values replaced, one at a time: that shows a pipe which filters by the user and forgets the
// organization.
func (a *auditor) swapped(ctx context.Context, p tinybird.PipeInfo, t Tenant, fixed []tinybird.FixedValue) ([]Check, error) {
	if len(p.Fixed) < 2 {
		return nil, nil
	}
	var checks []Check
	for i, f := range p.Fixed {
		if f.Literal != nil || f.Type == tinybird.TypeBoolean {
			continue
		}
		other := slices.Clone(fixed)
		other[i].Value = nobody(f)
		c, err := a.expectNone(ctx, p.Name, other, nil, checkTenants, t.name()+" with a "+f.Name+" that does not exist")
		if err != nil {
			return nil, err
		}
		c.Param = f.Name
		checks = append(checks, c)
	}
	return checks, nil
}
