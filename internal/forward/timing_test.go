package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// tripper is a transport made of a function.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// script is a body whose pieces come after a while each; when they are used up it hangs.
type script struct {
	ctx    context.Context
	pieces []time.Duration
}

func (s *script) Read(p []byte) (int, error) {
	wait := 365 * 24 * time.Hour
	if len(s.pieces) > 0 {
		wait, s.pieces = s.pieces[0], s.pieces[1:]
	}
	select {
	case <-time.After(wait):
		return copy(p, "x"), nil
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	}
}

func (s *script) Close() error { return nil }

// slowWriter is a client that takes a while for each piece.
type slowWriter struct {
	*httptest.ResponseRecorder

	each time.Duration
}

func (s slowWriter) Write(p []byte) (int, error) {
	<-time.After(s.each)
	return s.ResponseRecorder.Write(p)
}

// The time limits, to the second, on a clock that only waiting moves.
func TestTimeLimits(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, c := range []struct {
		name    string
		headers time.Duration
		pieces  []time.Duration
		client  time.Duration
		status  int // 0: it breaks off
		after   time.Duration
	}{
		{name: "no headers", headers: 36 * s, status: 504, after: 35 * s},
		{name: "late headers, no body", headers: 34 * s, status: 504, after: 69 * s},
		{name: "pieces that are just in time", headers: s, pieces: []time.Duration{34 * s, 34 * s, 34 * s}, after: 138 * s},
		{name: "a piece that is late", headers: s, pieces: []time.Duration{s, 36 * s}, after: 37 * s},
		{name: "a slow client", headers: s, pieces: []time.Duration{s, s}, client: 300 * s, after: 638 * s},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := New(Options{Base: &url.URL{Scheme: "http", Host: "a"}, Transport: tripper(func(r *http.Request) (*http.Response, error) {
					select {
					case <-time.After(c.headers):
					case <-r.Context().Done():
						return nil, context.Cause(r.Context())
					}
					return &http.Response{StatusCode: 200, ContentLength: -1, Body: &script{r.Context(), c.pieces}}, nil
				})})
				w := slowWriter{httptest.NewRecorder(), c.client}
				start := time.Now()
				out, err := f.Forward(t.Context(), w, question())
				if got := time.Since(start); got != c.after {
					t.Errorf("took %v, want %v", got, c.after)
				}
				if want := min(c.headers, 35*s); out.Duration != want {
					t.Errorf("Duration %v, want %v", out.Duration, want)
				}
				if c.status != 0 {
					wantRefusal(t, err, c.status, apierr.UpstreamTimeout)
					return
				}
				if !errors.Is(err, ErrAborted) || !errors.Is(err, errIdleTimeout) {
					t.Errorf("ended with %v", err)
				}
				got := len(c.pieces)
				if c.name == "a piece that is late" {
					got--
				}
				if w.Body.Len() != got {
					t.Errorf("%d pieces reached the client, want %d", w.Body.Len(), got)
				}
			})
		})
	}
}

// An error's status is known before its text, which is not waited for any longer than is worth it.
func TestErrorTextIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := New(Options{Base: &url.URL{Scheme: "http", Host: "a"}, PassErrors: true, Transport: tripper(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 400, ContentLength: -1, Body: &script{r.Context(), nil}}, nil
		})})
		start := time.Now()
		_, err := f.Forward(t.Context(), httptest.NewRecorder(), question())
		wantRefusal(t, err, 400, apierr.QueryRefused)
		if got := time.Since(start); got != errorBodyTimeout {
			t.Errorf("took %v, want %v", got, errorBodyTimeout)
		}
	})
}

// spiedBody is a body that tells whether it was closed.
type spiedBody struct {
	io.Reader

	closed bool
}

func (b *spiedBody) Close() error {
	b.closed = true
	return nil
}

// Whatever becomes of an answer, its body is closed and its context ended, or connections would pile up.
func TestNothingIsLeftOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status int
		body   io.Reader
	}{
		{"answered", 200, strings.NewReader("{}")},
		{"not modified", 304, strings.NewReader("")},
		{"refused", 403, strings.NewReader("{}")},
		{"redirected", 302, strings.NewReader("")},
		{"failed", 200, iotest.ErrReader(errBroken)},
		{"broken off", 200, io.MultiReader(strings.NewReader("{"), iotest.ErrReader(errBroken))},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			body := &spiedBody{Reader: c.body}
			var ctx context.Context
			f := New(Options{Base: &url.URL{Scheme: "http", Host: "a"}, Transport: tripper(func(r *http.Request) (*http.Response, error) {
				ctx = r.Context()
				return &http.Response{StatusCode: c.status, ContentLength: -1, Body: body}, nil
			})})
			_, _, _ = ask(t, f, question())
			if !body.closed || ctx.Err() == nil {
				t.Errorf("body closed: %v, context ended: %v", body.closed, ctx.Err() != nil)
			}
		})
	}
}

// A connection that is lost is not the end of an answer, even if the reason given has an io.EOF in it.
func TestWrappedEOFIsNoEnd(t *testing.T) {
	t.Parallel()
	for _, start := range []string{"", "{"} {
		body := io.MultiReader(strings.NewReader(start), iotest.ErrReader(fmt.Errorf("connection lost: %w", io.EOF)))
		f := New(Options{Base: &url.URL{Scheme: "http", Host: "a"}, Transport: tripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, ContentLength: -1, Body: io.NopCloser(body)}, nil
		})})
		_, _, err := ask(t, f, question())
		if start == "" {
			wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
		} else if !errors.Is(err, ErrAborted) {
			t.Errorf("after %q: %v", start, err)
		}
	}
}

// A transport that answers just when its time is over has answered too late: the body is cut off already.
func TestAnswerThatIsLateByAHair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		body := &spiedBody{Reader: strings.NewReader("{}")}
		f := New(Options{Base: &url.URL{Scheme: "http", Host: "a"}, Transport: tripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return &http.Response{StatusCode: 200, ContentLength: -1, Body: body}, nil
		})})
		w, _, err := ask(t, f, question())
		wantRefusal(t, err, 504, apierr.UpstreamTimeout)
		if !body.closed || w.Body.Len() != 0 {
			t.Errorf("body closed: %v, written: %q", body.closed, w.Body)
		}
	})
}

// Whoever cancels may say why; it stays a cancellation.
func TestCancelledForAReason(t *testing.T) {
	t.Parallel()
	for _, read := range []int{0, 1} {
		ctx, cancel := context.WithCancelCause(t.Context())
		f := New(Options{Base: &url.URL{Scheme: "http", Host: "a"}, Transport: tripper(func(*http.Request) (*http.Response, error) {
			body := io.MultiReader(strings.NewReader("{"[:read]), readFunc(func([]byte) (int, error) {
				cancel(errBroken)
				return 0, context.Canceled
			}))
			return &http.Response{StatusCode: 200, ContentLength: -1, Body: io.NopCloser(body)}, nil
		})})
		_, err := f.Forward(ctx, httptest.NewRecorder(), question())
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrAborted) != (read > 0) {
			t.Errorf("after %d bytes: %v", read, err)
		}
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
