package devstack

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// sendEvents sends a body to the API as a client does.
func sendEvents(t *testing.T, a *API, token, query, body string, header http.Header) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v0/events?"+query, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestEvents(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, `{"a":1}`)
	_ = z.Close()
	jwt, err := SignToken("p.x.y", map[string]any{"exp": 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		token, query, body string
		header             http.Header
		status             int
		answer             string
		rows               int
	}{
		"NDJSON":              {"append", "name=events", "{\"a\":1}\n{\"a\":2}\n", nil, 202, `"successful_rows":2`, 2},
		"waits":               {"append", "name=events&wait=true", `{"a":1}`, nil, 200, `"quarantined_rows":0`, 1},
		"admin":               {"admin", "name=events", `{"a":1}`, nil, 202, `"successful_rows":1`, 1},
		"gzip":                {"append", "name=events", packed.String(), http.Header{"Content-Encoding": {"gzip"}}, 202, `"successful_rows":1`, 1},
		"no gzip":             {"append", "name=events", `{"a":1}`, http.Header{"Content-Encoding": {"gzip"}}, 400, "gzip", 0},
		"list":                {"append", "name=events&format=json", `[{"a":1},{"a":2}]`, nil, 202, `"successful_rows":2`, 2},
		"quarantine":          {"append", "name=events", "{\"a\":1}\n[1]\n3", nil, 202, `"quarantined_rows":2`, 1},
		"a token in a row":    {"append", "name=events", `{"token":"x"}`, nil, 202, `"successful_rows":1`, 1},
		"list, indented":      {"append", "name=events&format=json", "[\n{\"a\":\n1}]", nil, 202, `"successful_rows":1`, 1},
		"a row on two lines":  {"append", "name=events", "{\"a\":\n1}", nil, 400, "NDJSON", 0},
		"broken":              {"append", "name=events", `{"a":1`, nil, 400, "NDJSON", 0},
		"no name":             {"append", "", `{"a":1}`, nil, 400, "name", 0},
		"unknown data source": {"append", "name=other", `{"a":1}`, nil, 404, "does not exist", 0},
		"JWT":                 {jwt, "name=events", `{"a":1}`, nil, 403, "invalid", 0},
		"unknown token":       {"p.a.b", "name=events", `{"a":1}`, nil, 403, "invalid", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := NewAPI(APIOptions{})
			token := map[string]string{"append": a.AppendToken(), "admin": a.SigningKey()}[tt.token]
			if token == "" {
				token = tt.token
			}
			status, body := sendEvents(t, a, token, tt.query, tt.body, tt.header)
			if status != tt.status || !strings.Contains(body, tt.answer) {
				t.Errorf("got %d %s", status, body)
			}
			if n := len(a.Events("events")); n != tt.rows {
				t.Errorf("%d rows", n)
			}
		})
	}
}

func TestEventsEngine(t *testing.T) {
	t.Parallel()
	var fail error
	a := NewAPI(APIOptions{Datasources: []string{"d"}, Append: func(_ string, rows [][]byte) (int, int, error) {
		return len(rows) - 1, 1, fail
	}})
	if status, body := sendEvents(t, a, a.AppendToken(), "name=d", `{"a":1}{"a":2}`, nil); status != 202 || !strings.Contains(body, `"successful_rows":1`) {
		t.Errorf("got %d %s", status, body)
	}
	fail = errors.New("broken")
	if status, body := sendEvents(t, a, a.AppendToken(), "name=d", `{"a":1}`, nil); status != 500 {
		t.Errorf("got %d %s", status, body)
	}
	// The token for rows reads no pipe.
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v0/pipes/top_pages.json?token="+a.AppendToken(), http.NoBody)
	w := httptest.NewRecorder()
	if a.ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
