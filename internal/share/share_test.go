package share

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// TestFreshThenStaleThenGone follows one answer through its life.
func TestFreshThenStaleThenGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered}
		q := o.request(keyOf("q"))
		first := ask(t.Context(), s, q)
		first.want(t, Miss, "answer 1")
		first.wantField(t, "Cache-Status", "caddy-tinybird; fwd=miss; fwd-status=200; stored")
		first.wantField(t, "Age", "")

		time.Sleep(ttl - time.Second) //nolint:forbidigo // the bubble's clock
		hit := ask(t.Context(), s, q)
		hit.want(t, Hit, "answer 1")
		hit.wantField(t, "Cache-Status", "caddy-tinybird; hit; ttl=1")
		hit.wantField(t, "Age", "9")
		hit.wantField(t, "Content-Length", "8")

		time.Sleep(3 * time.Second) //nolint:forbidigo // the bubble's clock
		old := ask(t.Context(), s, q)
		old.want(t, Stale, "answer 1")
		old.wantField(t, "Cache-Status", "caddy-tinybird; hit; ttl=-2")
		old.wantField(t, "Age", "12")
		synctest.Wait()
		ask(t.Context(), s, q).want(t, Hit, "answer 2")

		time.Sleep(2*ttl - time.Nanosecond) //nolint:forbidigo // the bubble's clock
		ask(t.Context(), s, q).want(t, Stale, "answer 2")
		synctest.Wait()
		time.Sleep(2 * ttl) //nolint:forbidigo // the bubble's clock
		ask(t.Context(), s, q).want(t, Miss, "answer 4")
		wantIdle(t, s)
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
		if answers, bytes := s.Usage(); answers != 0 || bytes != 0 {
			t.Errorf("%d answers with %d bytes are kept for nobody", answers, bytes)
		}
	})
}

// TestClockThatJumps: an answer's age is judged each time, and what was fetched in a time to come is not fresh for longer than it
// should be.
func TestClockThatJumps(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	s := newStore(t, Options{EntrySize: entry, Now: func() time.Time { return now }})
	o := &origin{answer: numbered}
	q := o.request(keyOf("q"))
	ask(t.Context(), s, q).want(t, Miss, "answer 1")
	now = now.Add(-time.Hour)
	ask(t.Context(), s, q).want(t, Miss, "answer 2")
	now = now.Add(ttl - 1)
	ask(t.Context(), s, q).want(t, Hit, "answer 2")
	now = now.Add(ttl + 1)
	ask(t.Context(), s, q).want(t, Miss, "answer 3")

	large := &origin{answer: func(_ int, w http.ResponseWriter) error { return whole(w, strings.Repeat("a", entry+1)) }}
	q = large.request(keyOf("large"))
	ask(t.Context(), s, q).want(t, Miss, strings.Repeat("a", entry+1))
	now = now.Add(ttl - 1)
	ask(t.Context(), s, q).want(t, Bypass, "")
	now = now.Add(1)
	ask(t.Context(), s, q).want(t, Miss, strings.Repeat("a", entry+1))
}

// TestKeysNeverShare: many ask many questions at once, leave early, and meet failures; nobody ever gets the answer to another one's.
func TestKeysNeverShare(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{Entries: 8, Size: 64 << 10, EntrySize: 8 << 10})
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 100 {
				question := strconv.Itoa(random.IntN(24))
				key := keyOf(question)
				if random.IntN(2) == 0 {
					key.Encoding = Gzip
				}
				want := slices.Repeat([]byte(question+string(key.Encoding)+","), random.IntN(700)+1)
				fails := random.IntN(8) == 0
				o := &origin{answer: func(_ int, w http.ResponseWriter) error {
					if fails {
						return fmt.Errorf("failure of %s", question)
					}
					return whole(w, string(want))
				}}
				ctx, leave := context.WithCancel(t.Context())
				if random.IntN(8) == 0 {
					leave()
				}
				c := ask(ctx, s, Request{Key: key, TTL: time.Duration(random.IntN(3)) * time.Millisecond, Fetch: o.fetch})
				leave()
				unit := question + string(key.Encoding) + ","
				got := c.Body.String()
				for len(got) > 0 {
					if len(got) < len(unit) || got[:len(unit)] != unit {
						t.Errorf("the answer to %s is %.40q", unit, got)
						return
					}
					got = got[len(unit):]
				}
			}
		})
	}
	wg.Wait()
	s.Close()
}

// TestConditions: a client that has the answer is told so, by the answer's own validators; Tinybird is asked without conditions.
func TestConditions(t *testing.T) {
	t.Parallel()
	const date = "Mon, 02 Jan 2006 15:04:05 GMT"
	for name, c := range map[string]struct {
		etag, modified string
		client         http.Header
		status         int
	}{
		"none":                        {`"a"`, date, nil, 200},
		"the same":                    {`"a"`, "", http.Header{"If-None-Match": {`"a"`}}, 304},
		"weakly the same":             {`W/"a"`, "", http.Header{"If-None-Match": {`"x", "a"`}}, 304},
		"another":                     {`"a"`, "", http.Header{"If-None-Match": {`"b"`}}, 200},
		"any":                         {`"a"`, "", http.Header{"If-None-Match": {"*"}}, 304},
		"no tag":                      {"", "", http.Header{"If-None-Match": {`"a"`}}, 200},
		"an empty tag":                {"", "", http.Header{"If-None-Match": {`""`}}, 200},
		"broken":                      {`"a"`, "", http.Header{"If-None-Match": {`a`}}, 200},
		"not since":                   {"", date, http.Header{"If-Modified-Since": {date}}, 304},
		"since":                       {"", date, http.Header{"If-Modified-Since": {"Sun, 01 Jan 2006 15:04:05 GMT"}}, 200},
		"no date":                     {"", "", http.Header{"If-Modified-Since": {date}}, 200},
		"the tag counts, not the day": {`"a"`, date, http.Header{"If-None-Match": {`"b"`}, "If-Modified-Since": {date}}, 200},
		"others are not looked at":    {`"a"`, date, http.Header{"If-Match": {`"b"`}, "If-Range": {`"a"`}, "Range": {"bytes=0-1"}}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, Options{})
			o := &origin{answer: func(_ int, w http.ResponseWriter) error {
				w.Header().Set("Last-Modified", c.modified)
				w.Header().Set("Content-Encoding", "identity")
				err := whole(w, "body")
				return err
			}}
			q := o.request(keyOf("q"))
			q.Client = c.client
			q.Fetch = func(ctx context.Context, w http.ResponseWriter) (out forward.Outcome, err error) {
				return o.fetch(ctx, &withETag{w, c.etag})
			}
			for _, result := range []Result{Miss, Hit} {
				got := ask(t.Context(), s, q)
				if got.err != nil || got.out.Result != result || got.Code != c.status {
					t.Fatalf("%s %d, %v, want %s %d", got.out.Result, got.Code, got.err, result, c.status)
				}
				got.wantField(t, "ETag", c.etag)
				got.wantField(t, "Cache-Control", "private, no-store")
				body, kind, length, coding := "body", "application/json", "4", "identity"
				if c.status == http.StatusNotModified {
					body, kind, length, coding = "", "", "", ""
				}
				got.wantField(t, "Content-Type", kind)
				got.wantField(t, "Content-Length", length)
				got.wantField(t, "Content-Encoding", coding)
				if got.Body.String() != body {
					t.Errorf("body %q", got.Body)
				}
			}
		})
	}
}

// TestOnlyDescriptionsAreShared: what Tinybird says of its limits and of the query is for nobody else, and what is set on one
// client's answer is on no other's.
func TestOnlyDescriptionsAreShared(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{})
	o := &origin{answer: numbered}
	for _, result := range []Result{Miss, Hit, Hit} {
		c := &client{ResponseRecorder: httptest.NewRecorder()}
		c.Header().Set("X-Ratelimit-Limit", "5") // the edge's own
		c.out, c.err = s.Serve(t.Context(), c, o.request(keyOf("q")))
		c.want(t, result, "answer 1")
		names := make([]string, 0, len(c.Header()))
		for name, v := range c.Header() {
			names = append(names, name)
			v[0] = "changed in place, as Caddy's header directive does"
			c.Header()[name] = append(v, "added")
		}
		slices.Sort(names)
		want := []string{"Cache-Control", "Cache-Status", "Content-Length", "Content-Type", "Etag", "X-Content-Type-Options", "X-Ratelimit-Limit"}
		if result == Hit {
			want = slices.Insert(want, 0, "Age")
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: %v, want %v", result, names, want)
		}
	}
	ask(t.Context(), s, o.request(keyOf("q"))).wantField(t, "Content-Type", "application/json")
}

// TestContentTypeIsNotGuessed: what Tinybird does not say, net/http does not say in its place.
func TestContentTypeIsNotGuessed(t *testing.T) {
	t.Parallel()
	s := newStore(t, Options{})
	o := &origin{answer: func(_ int, w http.ResponseWriter) error {
		_, err := w.Write([]byte("<html>"))
		return err
	}}
	for range 2 {
		c := ask(t.Context(), s, o.request(keyOf("q")))
		if v, ok := c.Header()["Content-Type"]; !ok || v != nil {
			t.Errorf("Content-Type %q", v)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"negative entries":   {Entries: -1},
		"negative size":      {Size: -1},
		"negative entry":     {EntrySize: -1},
		"an entry too large": {Size: 100, EntrySize: 101},
		"too large":          {Size: 1 << 33},
	} {
		if s, err := New(o); err == nil {
			s.Close()
			t.Errorf("%s is accepted", name)
		}
	}
	s := newStore(t, Options{Size: 100})
	if s.entrySize != 100 {
		t.Errorf("the default of an entry is %d bytes in a cache of 100", s.entrySize)
	}
}

func BenchmarkHit(b *testing.B) {
	s := newStore(b, Options{})
	o := &origin{answer: numbered}
	q := o.request(keyOf("q"))
	ask(b.Context(), s, q)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &discard{header: make(http.Header)}
		for pb.Next() {
			clear(w.header)
			if out, err := s.Serve(b.Context(), w, q); err != nil || out.Result == Bypass {
				b.Error(out, err)
			}
		}
	})
}
