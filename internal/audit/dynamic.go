package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/tbapi"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

// dynamic reads the pipe: as nobody, without its parameters, and as the tenants that were given.
func (a *auditor) dynamic(ctx context.Context, p tinybird.PipeInfo, openers []opener) ([]Check, error) {
	first, err := a.readAsNobody(ctx, p, nil, checkNobody)
	if err != nil {
		return nil, err
	}
	checks := []Check{first}
	for _, f := range []func() ([]Check, error){
		func() ([]Check, error) { return a.branches(ctx, p, openers) },
		func() ([]Check, error) { return a.without(ctx, p) },
		func() ([]Check, error) { return a.tenants(ctx, p) },
	} {
		more, err := f()
		if err != nil {
			return nil, err
		}
		checks = append(checks, more...)
	}
	return checks, nil
}

// Strangers are values of a pipe's fixed parameters that belong to nobody. What the config gives to everybody stays; random is false if
// nothing else is left.
func Strangers(p tinybird.PipeInfo) (fixed []tinybird.FixedValue, random bool) {
	for _, f := range p.Fixed {
		value := f.Literal
		if value == nil {
			value = nobody(f)
			random = random || f.Type != tinybird.TypeBoolean
		}
		fixed = append(fixed, tinybird.FixedValue{Name: f.Name, Value: value})
	}
	return fixed, random
}

func (a *auditor) readAsNobody(ctx context.Context, p tinybird.PipeInfo, query url.Values, check string) (Check, error) {
	fixed, random := Strangers(p)
	if !random {
		return Check{
			Check: check, Status: Skip, Code: CodeUnclear,
			Message: "all fixed values are in the config, or true and false, so there is no tenant that does not exist",
		}, nil
	}
	return a.expectNone(ctx, p.Name, fixed, query, check, "a tenant that does not exist")
}

// expectNone reads the pipe and holds that nothing comes back. A single row of zeros, nulls and empty texts is what totals over
// no rows look like, and is nothing.
func (a *auditor) expectNone(ctx context.Context, pipe string, fixed []tinybird.FixedValue, query url.Values, check, who string) (Check, error) {
	with := ""
	if len(query) > 0 {
		with = " with " + short(plainQuery(query))
	}
	token, err := a.mint(pipe, fixed)
	if err != nil {
		return Check{}, err
	}
	r, status, err := a.client.Read(ctx, pipe, token, query)
	switch {
	case errors.Is(err, tbapi.ErrTooBig):
		return failed(check, CodeRows, "", who+" reads more than "+strconv.Itoa(tbapi.MaxRows>>20)+" MiB"+with), nil
	case err != nil:
		return Check{}, err
	case status != http.StatusOK:
		return a.refused(check, status, "asked as "+who+with)
	case len(r.Data) == 0:
		return Check{Check: check, Status: Pass, Message: who + " reads no rows" + with}, nil
	case len(r.Data) == 1 && blank(r.Data[0]):
		return Check{Check: check, Status: Pass, Message: who + " reads one row of zeros and blanks, the total of nothing" + with}, nil
	}
	return failed(check, CodeRows, "", fmt.Sprintf("%s reads %d rows%s", who, len(r.Data), with)), nil
}

// refused is a pipe that Tinybird does not answer. A 400 says that the values did not suit the pipe; the rest is no answer at all.
func (a *auditor) refused(check string, status int, asked string) (Check, error) {
	switch status {
	case http.StatusBadRequest:
		return Check{
			Check: check, Status: Unproven, Code: CodeUnclear, Message: "Tinybird answers 400 when " + asked,
			Fix: "Read the pipe yourself with such values. If it wants others, such as a number for a parameter that is text here, correct the type of fixed_param.",
		}, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return Check{}, errors.New("a token was refused that the signing key signed (" + strconv.Itoa(status) + "): check signing_key and workspace_id")
	}
	return Check{}, fmt.Errorf("status %d from Tinybird when %s", status, asked)
}

// branches reads as nobody with the client's parameters that open branches, one after the other and all at once.
func (a *auditor) branches(ctx context.Context, p tinybird.PipeInfo, openers []opener) ([]Check, error) {
	var queries []url.Values
	all := url.Values{}
	for _, o := range openers {
		if p.Params != nil && !slices.Contains(p.Params, o.name) {
			continue // the edge lets no client set it
		}
		all.Set(o.name, o.values[0])
		for _, v := range o.values {
			queries = append(queries, url.Values{o.name: {v}})
		}
	}
	if len(all) > 1 {
		queries = append(queries, all)
	}
	answered := 0
	for _, q := range queries {
		c, err := a.readAsNobody(ctx, p, q, checkBranches)
		if err != nil {
			return nil, err
		}
		switch c.Status {
		case Fail, Skip:
			return []Check{c}, nil
		case Pass:
			answered++
		case Unproven: // the guessed value did not suit
		}
	}
	if len(queries) == 0 {
		return nil, nil
	}
	status, text := Pass, fmt.Sprintf("nor with the parameters that open branches (%d of %d guesses were answered)", answered, len(queries))
	if answered == 0 {
		status, text = Skip, "no value that was guessed for the parameters that open branches was accepted"
	}
	return []Check{{Check: checkBranches, Status: status, Message: text}}, nil
}

// without reads with a token that fixes nothing.
func (a *auditor) without(ctx context.Context, p tinybird.PipeInfo) ([]Check, error) {
	token, err := a.mint(p.Name, nil)
	if err != nil {
		return nil, err
	}
	_, status, err := a.client.Read(ctx, p.Name, token, nil)
	if errors.Is(err, tbapi.ErrTooBig) {
		status, err = http.StatusOK, nil
	}
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusOK:
		return []Check{failed(checkWithout, CodeOptional, "", "the pipe answers a call without its fixed parameters")}, nil
	case status == http.StatusBadRequest:
		return []Check{{Check: checkWithout, Status: Pass, Message: "a call without the fixed parameters is refused"}}, nil
	}
	_, err = a.refused(checkWithout, status, "asked without the fixed parameters")
	return nil, err
}

// blank reports whether all values of a row are zero, null or empty.
func blank(row map[string]any) bool {
	for _, v := range row {
		if !blankValue(v) {
			return false
		}
	}
	return true
}

func blankValue(v any) bool {
	switch v := v.(type) {
	case string:
		// Dates begin at the epoch, and decimals and large integers come as text.
		return v == "1970-01-01" || strings.HasPrefix(v, "1970-01-01 00:00:00") || strings.Trim(v, "0.") == ""
	case json.Number:
		f, err := v.Float64()
		return err == nil && f == 0
	case bool:
		return !v
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	default:
		return v == nil
	}
}

func plainQuery(q url.Values) string {
	text, err := url.QueryUnescape(q.Encode())
	if err != nil { // what Encode made can be undone
		return q.Encode()
	}
	return text
}
