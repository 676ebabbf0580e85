package devstack

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

const (
	eventsPath = "/v0/events"
	docEvents  = "https://www.tinybird.co/docs/api-reference/events-api"
)

// maxEvents bounds the rows that are kept for each data source; the oldest are forgotten first.
const maxEvents = 100_000

// appendToken makes the static token that may append to all data sources and do nothing else.
func appendToken(signingKey string) string {
	return "p." + base64.RawURLEncoding.EncodeToString([]byte(`{"id":"append"}`)) + "." + signingKey[max(0, len(signingKey)-24):]
}

// AppendToken is a static token that may append to all data sources.
func (a *API) AppendToken() string { return a.append }

// Events returns the rows that a data source has taken, oldest first, as they were sent.
func (a *API) Events(datasource string) [][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events[datasource])
}

// takeEvents answers POST /v0/events: 202 for rows that will be stored, 200 with wait=true for rows that are.
func (a *API) takeEvents(in *input, who caller, out *answer) *refusal {
	switch name := in.query["name"]; {
	case in.r.Method != http.MethodPost:
		return &refusal{status: http.StatusMethodNotAllowed, text: "Method Not Allowed", doc: docEvents}
	case !who.admin && !who.appends:
		return &refusal{status: http.StatusForbidden, text: "Not enough permissions to append: JWTs only read endpoints", doc: docAuth}
	case name == "":
		return &refusal{status: http.StatusBadRequest, text: "The parameter name is required", doc: docEvents}
	case !slices.Contains(a.datasources, name):
		return &refusal{status: http.StatusNotFound, text: "Data Source '" + name + "' does not exist", doc: docEvents}
	default:
		rows, err := eventRows(in)
		if err != nil {
			return &refusal{status: http.StatusBadRequest, text: err.Error(), doc: docEvents}
		}
		ok, quarantined, err := a.storeEvents(name, rows)
		if err != nil {
			return &refusal{status: http.StatusInternalServerError, text: err.Error(), doc: docEvents}
		}
		body, err := marshal(map[string]int{"successful_rows": ok, "quarantined_rows": quarantined})
		if err != nil { // numbers always marshal
			return &refusal{status: http.StatusInternalServerError, text: err.Error(), doc: docEvents}
		}
		out.body = body
		out.header.Set("Content-Type", "application/json; charset=UTF-8")
		if out.status = http.StatusAccepted; in.query["wait"] == "true" {
			out.status = http.StatusOK
		}
		return nil
	}
}

// storeEvents keeps the rows, and gives them to the engine if there is one. Rows that are no objects go to quarantine.
func (a *API) storeEvents(name string, rows [][]byte) (ok, quarantined int, err error) {
	var good [][]byte
	for _, row := range rows {
		if row[0] == '{' {
			good = append(good, row)
		}
	}
	ok, quarantined = len(good), len(rows)-len(good)
	if a.appender != nil {
		engineOK, engineQuarantined, err := a.appender(name, good)
		if err != nil {
			return 0, 0, err
		}
		ok, quarantined = engineOK, quarantined+engineQuarantined
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := slices.Concat(a.events[name], good)
	a.events[name] = kept[max(0, len(kept)-maxEvents):]
	return ok, quarantined, nil
}

// eventRows splits a body into JSON values: one after another, or with format=json one, which may be a list.
func eventRows(in *input) ([][]byte, error) {
	raw := in.raw
	if strings.EqualFold(in.r.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, errors.New("the body is no gzip")
		}
		if raw, err = io.ReadAll(io.LimitReader(z, maxBody+1)); err != nil || len(raw) > maxBody {
			return nil, errors.New("the body cannot be unpacked, or is too large")
		}
	}
	var rows [][]byte
	for dec := json.NewDecoder(bytes.NewReader(raw)); ; {
		var v json.RawMessage
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || bytes.ContainsRune(v, '\n') && in.query["format"] != "json" {
			return nil, errors.New("the body is not NDJSON")
		}
		rows = append(rows, v)
	}
	if in.query["format"] == "json" && len(rows) == 1 && rows[0][0] == '[' {
		var list []json.RawMessage
		if err := json.Unmarshal(rows[0], &list); err != nil {
			return nil, errors.New("the body is not JSON")
		}
		rows = nil
		for _, v := range list {
			rows = append(rows, v)
		}
	}
	return rows, nil
}
