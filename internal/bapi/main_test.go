package bapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What must not be seen anywhere but in the request.
const (
	secretKey    = "sk_live_marker_key"
	expiredToken = "marker_expired.marker_expired.marker_expired"
	refreshToken = "marker_refresh"
	nonce        = "marker_nonce"
)

var refresh = Refresh{SessionID: "sess_1", ExpiredToken: expiredToken, RefreshToken: refreshToken, Origin: "https://app.example.com"}

// serve starts a stand-in of Clerk.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	if o.SecretKey == "" {
		o.SecretKey = secretKey
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// calls are the two calls, which have most of their behaviour in common.
var calls = map[string]func(context.Context, *Client) ([]string, error){
	"HandshakePayload": func(ctx context.Context, c *Client) ([]string, error) { return c.HandshakePayload(ctx, nonce) },
	"RefreshSession":   func(ctx context.Context, c *Client) ([]string, error) { return c.RefreshSession(ctx, refresh) },
}

// wantError fails unless err is an *Error with no secret in it.
func wantError(t testing.TB, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got error %v, want an *Error", err)
	}
	withoutMarkers(t, err)
	if e.Code != "" && strings.Contains(e.Code, "marker") {
		t.Errorf("code %q", e.Code)
	}
	return e
}

// withoutMarkers looks for secrets in an error and all that it wraps.
func withoutMarkers(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, "marker") {
		t.Errorf("a secret is shown: %s", text)
	}
	withoutMarkers(t, errors.Unwrap(err))
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range many.Unwrap() {
			withoutMarkers(t, one)
		}
	}
}

func write(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}
