package share

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// TestAnswersAreBounded: more answers than there is room for do not take more room, in entries and in bytes.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o       Options
		body    int
		answers int
	}{
		"many small": {Options{Entries: 50, Size: 1 << 20}, 10, 50},
		"few large":  {Options{Entries: 1000, Size: 1 << 20}, 100 << 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, c.o, func(t *testing.T, s *Store) {
				o := &origin{answer: func(_ int, w http.ResponseWriter) error { return whole(w, strings.Repeat("a", c.body)) }}
				for i := range 5 * c.answers {
					if got := ask(t.Context(), s, o.request(keyOf(strconv.Itoa(i)))); got.out.Result != Miss || got.Body.Len() != c.body {
						t.Fatalf("%s, %d bytes, %v", got.out.Result, got.Body.Len(), got.err)
					}
				}
				wantIdle(t, s)
				if answers, bytes := s.Usage(); answers > c.answers || answers < c.answers/2 || bytes > c.o.Size {
					t.Errorf("%d answers with %d bytes", answers, bytes)
				}
				s.Close()
				if answers, bytes := s.Usage(); answers != 0 || bytes != 0 {
					t.Errorf("%d answers with %d bytes are left", answers, bytes)
				}
			})
		})
	}
}

// Attack: clients ask for ever new answers and read them slowly, so that they are held here. When all memory is taken, answers are
// passed on as they come, and the one who asks gets them all the same.
func TestSlowClientsHoldNoMoreThanTheBound(t *testing.T) {
	t.Parallel()
	const size, body = 1 << 20, 64 << 10
	inBubble(t, Options{Size: size}, func(t *testing.T, s *Store) {
		want := strings.Repeat("a", body)
		o := &origin{answer: func(_ int, w http.ResponseWriter) error { return whole(w, want) }}
		var wg sync.WaitGroup
		clients := make([]*pipe, 100)
		for i := range clients {
			p := newPipe()
			clients[i] = p
			wg.Go(func() { p.out, p.err = s.Serve(t.Context(), p, o.request(keyOf(strconv.Itoa(i)))) })
			synctest.Wait()
			if _, bytes := s.Usage(); bytes > 2*size {
				t.Fatalf("%d bytes for %d clients", bytes, i+1)
			}
		}
		passedOn := 0
		for _, p := range clients {
			var got strings.Builder
			for got.Len() < body {
				got.WriteString(<-p.pieces)
			}
			if got.String() != want {
				t.Errorf("%.20q", got.String())
			}
		}
		wg.Wait()
		for _, p := range clients {
			p.want(t, Miss, want)
			if strings.HasSuffix(p.Header().Get("Cache-Status"), "detail=memory") {
				passedOn++
			}
		}
		if passedOn < 50 {
			t.Errorf("%d answers were passed on, so the bound was not met", passedOn)
		}
		wantIdle(t, s)
		if _, bytes := s.Usage(); bytes > size {
			t.Errorf("%d bytes are kept", bytes)
		}
	})
}

// TestGatheringTakesLittleMoreThanTheAnswer: what was taken in advance for an answer of unknown length is given back.
func TestGatheringTakesLittleMoreThanTheAnswer(t *testing.T) {
	t.Parallel()
	inBubble(t, Options{}, func(t *testing.T, s *Store) {
		for _, size := range []int{0, 1, 100, firstPiece + 1, 100_000, DefaultEntrySize} {
			o := &origin{answer: func(_ int, w http.ResponseWriter) error {
				w.WriteHeader(http.StatusOK)
				for rest := size; rest > 0; rest -= 1000 {
					if _, err := io.WriteString(w, strings.Repeat("a", min(rest, 1000))); err != nil {
						return err
					}
				}
				return nil
			}}
			_, before := s.Usage()
			got := ask(t.Context(), s, o.request(keyOf(strconv.Itoa(size))))
			got.want(t, Miss, strings.Repeat("a", size))
			got.wantField(t, "Cache-Status", "caddy-tinybird; fwd=miss; fwd-status=200; stored")
			if _, after := s.Usage(); after-before > int64(size)*5/4 || after-before < int64(size) {
				t.Errorf("%d bytes for an answer of %d", after-before, size)
			}
		}
		wantIdle(t, s)
	})
}
