package demo

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const someLine = `{"level":"debug","msg":"request decided","clerk_user":"user_a","pipe":"top_pages","code":"ok","params_fixed":["organization_id"],` +
	`"params_taken":["days"],"params_dropped":["token"],"steps_us":{"identify":2,"authorize":1},"total_us":3,"authorization":"planted"}` + "\n"

// The page is told what a line says, by name: nothing that somebody adds to the line later, and no other line.
func TestDecisionsAreReadByName(t *testing.T) {
	t.Parallel()
	h, demo := newTestApp(t)
	d := demo.decisions
	d.read(strings.NewReader("POST / HTTP/1.1\n{\"msg\":\"request not answered\",\"code\":\"planted\"}\nnull\n[]\n\n" + someLine))
	got, _, _ := d.since(0)
	if len(got) != 1 || got[0].User != "user_a" || got[0].ID != 1 {
		t.Fatalf("got %+v", got)
	}
	text := eventsOf(t, h, "/demo/decisions", nil, 1)
	want := `{"id":1,"ts":0,"clerk_user":"user_a","pipe":"top_pages","code":"ok","params_fixed":["organization_id"],"params_taken":["days"],` +
		`"params_dropped":["token"],"steps_us":{"identify":2,"authorize":1},"total_us":3}`
	if text[0] != want {
		t.Errorf("the page is told\n%s, want\n%s", text[0], want)
	}
}

// However many lines come, the latest are kept; and one that is too long leaves the edge not waiting.
func TestDecisionsAreBounded(t *testing.T) {
	t.Parallel()
	d := newDecisions()
	for n := range 3*maxDecisions + 1 {
		d.add([]byte(strings.Replace(someLine, "user_a", fmt.Sprintf("user_%d", n), 1)))
		if len(d.kept) > maxDecisions || cap(d.kept) > 2*maxDecisions {
			t.Fatalf("%d lines are kept, in room for %d", len(d.kept), cap(d.kept))
		}
	}
	all, _, _ := d.since(0)
	if len(all) != maxDecisions || all[0].ID != 2*maxDecisions+2 || all[maxDecisions-1].User != fmt.Sprintf("user_%d", 3*maxDecisions) {
		t.Errorf("%d lines, from %d on", len(all), all[0].ID)
	}
	for _, c := range []struct{ after, want int }{{d.last - 2, 2}, {d.last, 0}, {d.last + 5, 0}, {-7, maxDecisions}} {
		if newer, _, _ := d.since(c.after); len(newer) != c.want {
			t.Errorf("after %d of %d: %d lines, want %d", c.after, d.last, len(newer), c.want)
		}
	}
	endless := strings.NewReader(strings.Repeat("x", 2*maxLine) + "\n" + someLine)
	if d.read(endless); endless.Len() > 0 {
		t.Error("what follows a long line is not read")
	}
}

// Nobody but the first who comes, which is the edge, can put lines in.
func TestDecisionsTakeOneConnection(t *testing.T) {
	t.Parallel()
	h, demo := newTestApp(t)
	d := demo.decisions
	address, err := d.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Write([]byte(someLine)); err != nil {
		t.Fatal(err)
	}
	eventsOf(t, h, "/demo/decisions", nil, 1)
	if second, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address); err == nil {
		_ = second.Close()
		t.Error("a second one is taken")
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	never := newDecisions()
	if _, err := never.listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := never.close(); err != nil {
		t.Errorf("without an edge: %v", err)
	}
}

// Whoever looks gets what is kept, then what comes, and the end. A browser that comes again gets only what it has not seen.
func TestDecisionsAreStreamed(t *testing.T) {
	t.Parallel()
	h, demo := newTestApp(t)
	d := demo.decisions
	server := httptest.NewServer(sameHost(h))
	t.Cleanup(server.Close)
	d.add([]byte(someLine))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/demo/decisions", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := response.Header.Get("Content-Type") + " " + response.Header.Get("Cache-Control"); got != "text/event-stream no-store" {
		t.Errorf("the stream has %s", got)
	}
	lines := bufio.NewScanner(response.Body)
	next := func() string {
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				return id
			}
		}
		return "end"
	}
	if id := next(); id != "1" {
		t.Errorf("first came %s", id)
	}
	d.add([]byte(someLine))
	if id := next(); id != "2" {
		t.Errorf("then came %s", id)
	}
	if got := eventsOf(t, h, "/demo/decisions", http.Header{"Last-Event-Id": {"1"}}, 1); !strings.HasPrefix(got[0], `{"id":2,`) {
		t.Errorf("who has seen the first gets %s", got[0])
	}
	if got := eventsOf(t, h, "/demo/decisions?after=1", nil, 1); !strings.HasPrefix(got[0], `{"id":2,`) {
		t.Errorf("who asks for what follows the first gets %s", got[0])
	}
	d.end()
	d.end()
	if id := next(); id != "end" {
		t.Errorf("after the end came %s", id)
	}
	if d.add([]byte(someLine)); d.last != 2 {
		t.Error("a line was taken after the end")
	}
}

// sameHost lets requests come as the page sends them.
func sameHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Host = testHost
		next.ServeHTTP(w, r)
	})
}

// firstEvents ends a request once it was sent so many events.
type firstEvents struct {
	*httptest.ResponseRecorder

	left int
	done context.CancelFunc
}

func (f *firstEvents) Write(p []byte) (int, error) {
	if f.left--; f.left == 0 {
		defer f.done()
	}
	return f.ResponseRecorder.Write(p)
}

// eventsOf are the first n that somebody gets.
func eventsOf(t *testing.T, h http.Handler, target string, header http.Header, n int) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &firstEvents{httptest.NewRecorder(), n, cancel}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://"+testHost+target, http.NoBody)
	maps.Copy(r.Header, header)
	h.ServeHTTP(w, r)
	var found []string
	for line := range strings.Lines(w.Body.String()) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			found = append(found, strings.TrimSpace(data))
		}
	}
	if len(found) != n {
		t.Fatalf("%d events, want %d: %s", len(found), n, w.Body)
	}
	return found
}
