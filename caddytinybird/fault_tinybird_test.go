package caddytinybird

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

const (
	okHead = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	// marker is in what broken answers hold. It may reach a client as a part of a broken answer only.
	marker = `{"meta":"marker_of_the_upstream"`
)

// tinybirdFault is one thing that Tinybird, or what lies before it, does wrong.
type tinybirdFault struct {
	play   func(*net.TCPConn, *http.Request)
	status int    // of the edge's answer; 0: it is cut off
	code   string // of its refusal, or of the outcome in the log
	began  bool   // its head is that of an answer: rows have been taken
}

var tinybirdFaults = map[string]tinybirdFault{
	"closes":                  {says(""), 502, "upstream_unreachable", false},
	"resets":                  {resets(""), 502, "upstream_unreachable", false},
	"silent":                  {hangs(""), 504, "upstream_timeout", false},
	"hangs in its head":       {hangs("HTTP/1.1 200 OK\r\nContent-Ty"), 504, "upstream_timeout", false},
	"trickles its head":       {repeats("HTTP/1.1 200 OK\r\nA: ", "a", 20*time.Millisecond), 504, "upstream_timeout", false},
	"cuts its head":           {says("HTTP/1.1 200 OK\r\nContent-Ty"), 502, "upstream_unreachable", false},
	"only interim":            {repeats("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 0), 502, "upstream_unreachable", false},
	"interim, then silent":    {hangs("HTTP/1.1 100 Continue\r\n\r\n"), 504, "upstream_timeout", false},
	"switches protocols":      {says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: Upgrade\r\n\r\n" + marker), 502, "upstream_unreachable", false},
	"huge head":               {says("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 300<<10) + "\r\n\r\n"), 502, "upstream_unreachable", false},
	"endless head":            {repeats("HTTP/1.1 200 OK\r\n", "A: "+strings.Repeat("a", 64<<10)+"\r\n", 0), 502, "upstream_unreachable", false},
	"no HTTP":                 {says("220 " + marker + " ESMTP\r\n"), 502, "upstream_unreachable", false},
	"two lengths":             {says(okHead + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + marker), 502, "upstream_unreachable", false},
	"no length":               {says(okHead + "Connection: close\r\n\r\n" + marker), 502, "upstream_unreachable", true},
	"hangs before its body":   {hangs(okHead + "Content-Length: 900\r\n\r\n"), 504, "upstream_timeout", true},
	"hangs in its body":       {hangs(okHead + "Content-Length: 900\r\n\r\n" + marker), 0, "aborted", true},
	"hangs in its chunks":     {hangs(okHead + "Transfer-Encoding: chunked\r\n\r\n20\r\n" + marker + "\r\n"), 0, "aborted", true},
	"cuts its body":           {says(okHead + "Content-Length: 900\r\n\r\n" + marker), 0, "aborted", true},
	"cuts its chunks":         {says(okHead + "Transfer-Encoding: chunked\r\n\r\n20\r\n" + marker + "\r\n"), 0, "aborted", true},
	"resets in its body":      {resets(okHead + "Content-Length: 900\r\n\r\n" + marker), 0, "aborted", true},
	"nonsense among chunks":   {says(okHead + "Transfer-Encoding: chunked\r\n\r\n20\r\n" + marker + "\r\nno size\r\n"), 502, "upstream_unreachable", true},
	"error that never ends":   {repeats("HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n", "10\r\nmarker_of_the_up\r\n", time.Millisecond), 502, "upstream_unreachable", false},
	"refusal that is silent":  {hangs("HTTP/1.1 400 Bad Request\r\nContent-Length: 900\r\n\r\n"), 400, "query_refused", false},
	"refusal that never ends": {repeats("HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n", "10\r\nmarker_of_the_up\r\n", time.Millisecond), 400, "query_refused", false},
}

// faultyEdge is an edge with a way to Tinybird that can be broken, and its log.
func faultyEdge(t *testing.T, stack *devstack.Stack, transport string) (*edge, *way, *observer.ObservedLogs) {
	t.Helper()
	w := newWay(t, stack.APIURL)
	rows := withEvents(t, stack)
	e := newEdge(t, stack, func(h *Handler) {
		rows(h)
		h.Upstream = "http://" + w.addr
		h.TransportRaw = json.RawMessage(transport)
	})
	core, logged := observer.New(zap.DebugLevel)
	e.log = zap.New(core)
	return e, w, logged
}

// TestTinybirdFaults: whatever Tinybird does wrong, the client gets the status and the code that say so, or an answer that is visibly cut
// off; the log has the cause; the connection is given up; and when Tinybird is well again, so is the edge.
func TestTinybirdFaults(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	const times = `{"protocol":"http","response_header_timeout":"500ms","read_timeout":"500ms","max_response_header_size":262144`
	for kind, transport := range map[string]string{"directly": times + `}`, "by the transport": times + `,"write_timeout":"1m"}`} {
		for name, tt := range tinybirdFaults {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				e, w, logged := faultyEdge(t, stack, transport)
				if (e.Handler.direct != nil) != (kind == "directly") {
					t.Fatal("the other way is taken")
				}
				w.instead(tt.play)
				tt.check(t, e, logged)
				if kind == "by the transport" { // which takes the rows in any case
					tt.checkRows(t, e)
				}
				w.awaitNone(t)

				w.instead(nil)
				for user, own := range map[string]string{"ada": "acme", "cleo": "globex"} {
					got := e.get(t, user, liveEvents)
					for got.StatusCode == http.StatusGatewayTimeout { // on a machine that is slow
						got = e.get(t, user, liveEvents)
					}
					onlyTenant(t, got, own)
				}
			})
		}
	}
}

// check asks for a pipe.
func (f *tinybirdFault) check(t *testing.T, e *edge, logged *observer.ObservedLogs) {
	t.Helper()
	// Over a connection that was used before, net/http would ask again when an answer is cut off before it began.
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := fresh.Do(e.request(t, "ada", http.MethodGet, liveEvents, nil))
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		got := reply{resp, body}
		switch {
		case f.status == 0 && err == nil:
			t.Errorf("status %d, %d bytes look whole", resp.StatusCode, len(body))
		case f.status == 0:
		case err != nil:
			t.Fatal(err)
		case got.StatusCode != f.status || got.code(t) != f.code || bytes.Contains(body, []byte("marker")):
			t.Errorf("status %d: %s", got.StatusCode, body)
		}
	} else if f.status != 0 {
		t.Fatal(err)
	}
	lines := logged.FilterMessage("request not answered").All()
	if len(lines) != 1 || lines[0].ContextMap()["code"] != f.code || lines[0].ContextMap()["error"] == nil {
		t.Fatalf("logged %v", lines)
	}
	level := zap.ErrorLevel
	switch f.status {
	case 0:
		level = zap.WarnLevel
	case http.StatusBadRequest:
		level = zap.DebugLevel // the client's
	}
	if lines[0].Level != level {
		t.Errorf("logged as %v", lines[0].Level)
	}
}

// checkRows sends a row. Nobody is told that a row was not taken of which that is not known.
func (f *tinybirdFault) checkRows(t *testing.T, e *edge) {
	t.Helper()
	got := e.do(t, e.request(t, "ada", http.MethodPost, "/v0/events?name=events", []byte(`{}`)))
	c := got.counted(t)
	switch {
	case f.began: // it took the row, and what became of it is not known
		if got.StatusCode != http.StatusConflict || c.Code != "events_incomplete" {
			t.Errorf("a row: status %d: %s", got.StatusCode, got.body)
		}
	case got.StatusCode != f.status || c.Code != f.code || (c.Unknown == 1) != (f.status >= 500):
		t.Errorf("a row: status %d: %s", got.StatusCode, got.body)
	}
}

// TestTinybirdRefusesConnections: nobody listens, and then somebody does again.
func TestTinybirdRefusesConnections(t *testing.T) {
	t.Parallel()
	e, w, logged := faultyEdge(t, newStack(t, devstack.Options{}), `{"protocol":"http"}`)
	onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
	w.refuse()
	for range 3 {
		if got := e.get(t, "ada", liveEvents); got.StatusCode != 502 || got.code(t) != "upstream_unreachable" {
			t.Errorf("status %d: %s", got.StatusCode, got.body)
		}
	}
	if lines := logged.FilterMessage("request not answered").All(); len(lines) != 3 || !strings.Contains(errorOf(lines[0]), "refused") {
		t.Errorf("logged %v", lines)
	}
	w.listen(t)
	onlyTenant(t, e.get(t, "ada", liveEvents), "acme")
}

func errorOf(line observer.LoggedEntry) string {
	text, _ := line.ContextMap()["error"].(string)
	return text
}

// TestInterimAnswersAreNotTheAnswer: hints that come before an answer reach nobody, and the answer does.
func TestInterimAnswersAreNotTheAnswer(t *testing.T) {
	t.Parallel()
	e, w, _ := faultyEdge(t, newStack(t, devstack.Options{}), `{"protocol":"http"}`)
	w.instead(says("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + okHead + "Content-Length: 11\r\n\r\n{\"data\":[]}"))
	if got := e.get(t, "ada", liveEvents); got.StatusCode != 200 || len(got.rows(t)) != 0 || got.Header.Get("Link") != "" {
		t.Errorf("status %d, %v: %s", got.StatusCode, got.Header, got.body)
	}
}

// TestSlowClientOfAnEndlessAnswer: a client that takes a byte at a time, or none, makes Tinybird wait and not the edge fill. It is not cut
// off for its slowness, others are served meanwhile, and when it goes, the request to Tinybird is cancelled.
func TestSlowClientOfAnEndlessAnswer(t *testing.T) {
	t.Parallel()
	for kind, more := range map[string]string{"directly": "", "by the transport": `,"write_timeout":"1m"`} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			e, w, _ := faultyEdge(t, newStack(t, devstack.Options{}), `{"protocol":"http","read_timeout":"500ms"`+more+`}`)
			var sent atomic.Int64
			full, cancelled := make(chan struct{}), make(chan struct{})
			w.instead(func(c *net.TCPConn, r *http.Request) {
				if r.URL.Query().Has("short") {
					says(okHead+"Content-Length: 11\r\n\r\n{\"data\":[]}")(c, r)
					return
				}
				defer close(cancelled)
				flood(c, &sent, full)
			})
			resp, err := e.client.Do(e.request(t, "ada", http.MethodGet, liveEvents, nil))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var one [1]byte
			for range 100 {
				if _, err := io.ReadFull(resp.Body, one[:]); err != nil {
					t.Fatal(err)
				}
			}
			<-full // for twice the time in which more has to come
			if n := sent.Load(); n > 32<<20 {
				t.Errorf("%d bytes are held for a client that does not read", n)
			}
			if got := e.get(t, "cleo", liveEvents+"?short=1"); got.StatusCode != 200 {
				t.Errorf("another client: status %d: %s", got.StatusCode, got.body)
			}
			if _, err := io.CopyN(io.Discard, resp.Body, sent.Load()/2); err != nil {
				t.Errorf("cut off: %v", err)
			}
			_ = resp.Body.Close()
			select {
			case <-cancelled:
			case <-time.After(30 * time.Second):
				t.Fatal("the request to Tinybird goes on")
			}
		})
	}
}

// flood writes chunks without end. It closes full when for a second none could be written.
func flood(c *net.TCPConn, sent *atomic.Int64, full chan struct{}) {
	_, err := io.WriteString(c, okHead+"Transfer-Encoding: chunked\r\n\r\n")
	chunk := []byte("1000\r\n" + strings.Repeat(" ", 1<<12) + "\r\n")
	for rest := chunk; err == nil; {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		var n int
		n, err = c.Write(rest)
		sent.Add(int64(n))
		if rest = rest[n:]; len(rest) == 0 {
			rest = chunk
		}
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			if full != nil {
				close(full)
			}
			full, err = nil, nil
		}
	}
}
