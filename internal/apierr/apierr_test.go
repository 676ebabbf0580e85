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

// TestNeedsHelp: an operator is led to the documentation by what may be a mistake of the application or the config, and not by what a
// single client does.
func TestNeedsHelp(t *testing.T) {
	t.Parallel()
	for e, want := range map[*Error]bool{
		New(http.StatusBadRequest, BadQuery, ""):       false,
		New(http.StatusUnauthorized, TokenExpired, ""): true,
		New(http.StatusForbidden, TenantMissing, ""):   true,
		NoEndpoint(): false,
		New(http.StatusConflict, EventsIncomplete, ""):             true,
		New(http.StatusTooManyRequests, RateLimited, ""):           false,
		New(http.StatusInternalServerError, Internal, ""):          true,
		New(http.StatusServiceUnavailable, KeysUnavailable, ""):    true,
		New(http.StatusGatewayTimeout, UpstreamTimeout, ""):        true,
		New(http.StatusMethodNotAllowed, MethodNotAllowed, "GET."): false,
	} {
		if e.NeedsHelp() != want {
			t.Errorf("%d %s: %v", e.Status, e.Code, !want)
		}
	}
}

// TestHelpIsNotForClients: the way to the documentation of operators is in no answer.
func TestHelpIsNotForClients(t *testing.T) {
	t.Parallel()
	e := New(http.StatusUnauthorized, TokenExpired, "The session token has expired.").With("WWW-Authenticate", "Bearer")
	w := httptest.NewRecorder()
	if err := e.Write(w); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(e.Code.Help(), "/docs/errors.md#token_expired") {
		t.Errorf("help %s", e.Code.Help())
	}
	for _, values := range w.Header() {
		if strings.Contains(strings.Join(values, " "), "errors.md") {
			t.Errorf("%v", w.Header())
		}
	}
	if strings.Contains(w.Body.String(), "errors.md") {
		t.Errorf("%s", w.Body)
	}
}
