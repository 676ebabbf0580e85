package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// appendToken has the form of a static token of Tinybird's.
const appendToken = "p.eyJ1IjoidyIsImlkIjoiYSJ9.c2lnbmF0dXJlLW9mLXRoZS1hcHBlbmQtdG9rZW4"

func batch() Batch {
	return Batch{Datasource: "events", Rows: []byte("{\"a\":1}\n{\"a\":2}\n"), Client: http.Header{}, Token: appendToken}
}

// What goes up is the batch, its length, the token, and nothing of the client's but what tells a program and a trace.
func TestAppendRequest(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	bodies := make(chan string, 1)
	f := forwarder(t, upstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
		seen <- r
		w.Header().Set("X-RateLimit-Remaining", "9")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"successful_rows":1,"quarantined_rows":1}`)
	}))
	b := batch()
	b.Wait = true
	b.Client = http.Header{
		"Authorization": {"Bearer other"}, "Cookie": {"a=b"}, "If-None-Match": {"x"}, "Content-Encoding": {"gzip"}, "Transfer-Encoding": {"chunked"},
		"Content-Length": {"3"}, "Content-Type": {"text/plain"}, "Accept": {"text/html"}, "Accept-Encoding": {"br"}, "X-Forwarded-For": {"1.2.3.4"},
		"User-Agent": {"flock"}, "Traceparent": {"00-a"},
	}
	h := http.Header{}
	receipt, out, err := f.Append(t.Context(), h, b)
	if err != nil || receipt != (Receipt{Fate: FateTaken, Status: 202, Successful: 1, Quarantined: 1}) || out.UpstreamStatus != 202 {
		t.Fatalf("%+v, %+v, %v", receipt, out, err)
	}
	if h.Get("X-RateLimit-Remaining") != "9" {
		t.Errorf("header %v", h)
	}
	r := receive(t, seen)
	if r.Method != http.MethodPost || r.RequestURI != "/v0/events?name=events&wait=true" || r.ContentLength != int64(len(b.Rows)) || receive(t, bodies) != string(b.Rows) {
		t.Errorf("%s %s, %d bytes", r.Method, r.RequestURI, r.ContentLength)
	}
	want := map[string]string{
		"Authorization": "Bearer " + appendToken, "Content-Type": "application/x-ndjson", "Accept": "application/json",
		"Accept-Encoding": "identity", "User-Agent": "flock", "Traceparent": "00-a", "Content-Length": "16",
	}
	for name, v := range r.Header {
		if len(v) != 1 || want[name] != v[0] {
			t.Errorf("%s: %q went up", name, v)
		}
	}
}

// What is known of the rows is told with every failure, and no answer of Tinybird's shows its token.
func TestAppendFailures(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	echo := `{"error":"invalid token ` + appendToken + `"}`
	for name, tt := range map[string]struct {
		serve  http.HandlerFunc
		status int
		code   apierr.Code
		fate   Fate
	}{
		"400":                  {answer(400, echo), 400, apierr.QueryRefused, FateRefused},
		"401":                  {answer(401, echo), 403, apierr.UpstreamRefused, FateRefused},
		"403":                  {answer(403, echo), 403, apierr.UpstreamRefused, FateRefused},
		"404":                  {answer(404, echo), 404, apierr.NotFound, FateRefused},
		"413":                  {answer(413, echo), 413, apierr.BodyTooLarge, FateRefused},
		"411":                  {answer(411, echo), 400, apierr.QueryRefused, FateRefused},
		"429":                  {answer(429, echo), 429, apierr.RateLimited, FateRefused},
		"redirect":             {answer(302, ""), 502, apierr.UpstreamUnreachable, FateRefused},
		"408":                  {answer(408, echo), 504, apierr.UpstreamTimeout, FateUnknown},
		"500":                  {answer(500, echo), 502, apierr.UpstreamUnreachable, FateUnknown},
		"503":                  {answer(503, echo), 503, apierr.UpstreamUnreachable, FateUnknown},
		"no JSON":              {answer(202, "ok"), 502, apierr.UpstreamUnreachable, FateTaken},
		"no numbers":           {answer(202, `{}`), 502, apierr.UpstreamUnreachable, FateTaken},
		"half of the numbers":  {answer(202, `{"successful_rows":2}`), 502, apierr.UpstreamUnreachable, FateTaken},
		"negative numbers":     {answer(202, `{"successful_rows":-2,"quarantined_rows":0}`), 502, apierr.UpstreamUnreachable, FateTaken},
		"too many":             {answer(202, `{"successful_rows":9223372036854775807,"quarantined_rows":0}`), 502, apierr.UpstreamUnreachable, FateTaken},
		"too many put aside":   {answer(202, `{"successful_rows":0,"quarantined_rows":9223372036854775807}`), 502, apierr.UpstreamUnreachable, FateTaken},
		"no content":           {answer(204, ""), 502, apierr.UpstreamUnreachable, FateTaken},
		"too long":             {answer(200, `{"successful_rows":2,"quarantined_rows":0}`+strings.Repeat(" ", maxReceipt)), 502, apierr.UpstreamUnreachable, FateTaken},
		"closed before header": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, apierr.UpstreamUnreachable, FateUnknown},
		"closed in the body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"successful_rows":2,"quarantined_rows":0}`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, 502, apierr.UpstreamUnreachable, FateTaken},
		"hangs before the header": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, 504, apierr.UpstreamTimeout, FateUnknown},
		"hangs in the body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"succ`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 504, apierr.UpstreamTimeout, FateTaken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := forwarder(t, upstream(t, tt.serve), func(o *Options) {
				o.PassErrors = true
				if strings.HasPrefix(name, "hangs") {
					o.HeaderTimeout, o.IdleTimeout = brief, brief
				}
			})
			receipt, out, err := f.Append(t.Context(), http.Header{}, batch())
			refusal := wantRefusal(t, err, tt.status, tt.code)
			if receipt != (Receipt{Fate: tt.fate}) {
				t.Errorf("%+v", receipt)
			}
			for _, text := range []string{err.Error(), string(refusal.Body()), errText(out.Err)} {
				if strings.Contains(text, "c2lnbmF0dXJl") || strings.Contains(text, "p.ey") {
					t.Errorf("the token is in %q", text)
				}
			}
			if tt.code == apierr.RateLimited && refusal.Header.Get("Retry-After") != "7" {
				t.Errorf("header %v", refusal.Header)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Without a connection no row was taken, and the client may send all of them again.
func TestAppendWithoutConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	receipt, _, err := forwarder(t, "http://"+l.Addr().String()).Append(t.Context(), http.Header{}, batch())
	wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
	if receipt.Fate != FateRefused {
		t.Errorf("%+v", receipt)
	}
}

// A client that goes away takes the request to Tinybird with it.
func TestAppendClientGone(t *testing.T) {
	t.Parallel()
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	f := forwarder(t, upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
		close(cancelled)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	receipt, _, err := f.Append(ctx, http.Header{}, batch())
	if !errors.Is(err, context.Canceled) || receipt.Fate != FateUnknown {
		t.Errorf("%+v, %v", receipt, err)
	}
	receive(t, cancelled)
}
