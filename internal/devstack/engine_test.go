package devstack

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// fakeEngine answers with what it was asked.
type fakeEngine struct {
	asked []Question
	err   error
}

func (f *fakeEngine) Query(_ context.Context, q Question) ([]byte, error) {
	f.asked = append(f.asked, q)
	return []byte("as it is"), f.err
}

func TestEngine(t *testing.T) {
	t.Parallel()
	f := &fakeEngine{}
	a, _ := newTestAPI(APIOptions{Engine: f, Pipes: []Pipe{
		{Name: "report", ID: "t_1", Nodes: []Node{{Name: "a", SQL: "SELECT 1", Endpoint: true}}},
		{Name: "draft", Nodes: []Node{{Name: "a", SQL: "SELECT 1"}}},
	}})
	bearers := map[string][]string{
		"tenant": bearer(t, a, "report", map[string]any{"org": "acme"}),
		"owner":  {"Authorization", "Bearer " + a.SigningKey()},
	}
	get := func(who, target string) (int, http.Header, string) {
		w := do(a, http.MethodGet, target, "", bearers[who]...)
		return w.Code, w.Header(), w.Body.String()
	}
	for _, c := range []struct {
		target, contentType string
		want                Question
	}{
		{"/v0/pipes/report.json?org=globex&n=1&n=2", "application/json; charset=UTF-8", Question{Pipe: "report", Format: "JSON", Params: map[string]string{"org": "acme", "n": "1,2"}}},
		{"/v0/pipes/t_1.parquet", "application/octet-stream", Question{Pipe: "report", Format: "Parquet", Params: map[string]string{"org": "acme"}}},
		{"/v0/pipes/report.ndjson?q=" + url.QueryEscape("SELECT 1 FROM _"), "application/x-ndjson", Question{Pipe: "report", SQL: "SELECT 1 FROM _", Format: "JSONEachRow"}},
		{"/v0/sql?q=" + url.QueryEscape("SELECT 1 format json"), "application/json; charset=UTF-8", Question{SQL: "SELECT 1", Format: "JSON"}},
		{"/v0/sql?q=" + url.QueryEscape("SELECT 1"), tsvType, Question{SQL: "SELECT 1", Format: "TabSeparated"}},
	} {
		status, header, body := get("tenant", c.target)
		got := f.asked[len(f.asked)-1]
		delete(got.Params, "q")
		if len(got.Params) == 0 {
			got.Params = nil
		}
		if status != http.StatusOK || header.Get("Content-Type") != c.contentType || body != "as it is" || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: status %d, %s, asked %+v", c.target, status, header.Get("Content-Type"), got)
		}
	}
	if status, _, body := get("owner", "/v0/pipes/draft.json"); status != http.StatusNotFound {
		t.Errorf("a pipe without an endpoint: status %d %s", status, body)
	}
	f.err = &QueryError{Status: http.StatusBadRequest, Code: 47, Text: "Unknown expression (UNKNOWN_IDENTIFIER)"}
	status, header, body := get("tenant", "/v0/pipes/report.csv")
	if status != http.StatusBadRequest || header.Get("X-DB-Exception-Code") != "47" || !strings.Contains(body, `"[Error] Unknown expression (UNKNOWN_IDENTIFIER)"`) {
		t.Errorf("a refusal: status %d %s", status, body)
	}
	f.err = errors.New("gone")
	if status, _, _ := get("tenant", "/v0/pipes/report.csv"); status != http.StatusInternalServerError {
		t.Errorf("an engine that is gone: status %d", status)
	}
}
