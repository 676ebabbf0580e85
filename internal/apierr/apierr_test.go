package apierr

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// TestWrite holds the shape that clients rely on: the two members, the headers, and nothing of the cause.
func TestWrite(t *testing.T) {
	t.Parallel()
	cause := errors.New("the cause, with a secret")
	e := New(http.StatusMethodNotAllowed, MethodNotAllowed, `Use GET & "POST", not <this>.`).With("Allow", "GET, POST").Wrap(cause)
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Control", "public")
	if err := e.Write(w); err != nil {
		t.Fatal(err)
	}
	var body map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	if len(body) != 2 || body["error"] != e.Message || body["code"] != "method_not_allowed" {
		t.Errorf("body %v", body)
	}
	if !strings.Contains(w.Body.String(), "<this>") {
		t.Errorf("a person cannot read %s", w.Body)
	}
	for name, want := range map[string]string{
		"Allow": "GET, POST", "Cache-Control": "private, no-store", "Content-Type": "application/json",
		"Content-Length": strconv.Itoa(w.Body.Len()),
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if w.Code != http.StatusMethodNotAllowed || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("status %d, %s", w.Code, w.Body)
	}
	if !errors.Is(e, cause) || !strings.Contains(e.Error(), "secret") {
		t.Errorf("the operator does not see the cause: %v", e)
	}
}

// TestNoEndpoint holds that each refusal is a value of its own, so that a header of one request is not that of the next.
func TestNoEndpoint(t *testing.T) {
	t.Parallel()
	NoEndpoint().With("X-Mark", "1")
	if e := NoEndpoint(); e.Status != http.StatusNotFound || e.Code != NotFound || len(e.Header) != 0 {
		t.Errorf("%+v", e)
	}
}
