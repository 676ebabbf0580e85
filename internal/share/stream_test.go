package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// pipe is a client that says what it gets, piece by piece, and waits for leave to take more.
type pipe struct {
	*client

	pieces  chan string
	flushes int
	failAt  int // the piece that cannot be written; 0: none
}

func newPipe() *pipe {
	return &pipe{client: &client{ResponseRecorder: httptest.NewRecorder()}, pieces: make(chan string)}
}

// serve lets the client ask, and closes what it returns when it has its answer.
func (p *pipe) serve(ctx context.Context, s *Store, q Request) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.out, p.err = s.Serve(ctx, p, q)
	}()
	return done
}

// wantPiece fails unless the next piece is this one.
func (p *pipe) wantPiece(t testing.TB, piece string) {
	t.Helper()
	if got := <-p.pieces; got != piece {
		t.Errorf("%q, want %q", got, piece)
	}
}

// passOn answers with the pieces that are sent, as they come.
func passOn(w io.Writer, sent <-chan string) error {
	for piece := range sent {
		if _, err := io.WriteString(w, piece); err != nil {
			return err
		}
	}
	return nil
}

func (p *pipe) Write(b []byte) (int, error) {
	p.pieces <- string(b)
	if p.failAt--; p.failAt == 0 {
		return 0, errors.New("connection reset")
	}
	return p.client.Write(b)
}

func (p *pipe) FlushError() error { p.flushes++; return nil }

const entry = 64

func small() Options { return Options{Size: 1 << 20, EntrySize: entry} }

// TestLargeAnswer: what is too large to be kept goes to one of those who waited as it comes, and the others are on their own. As
// long as that is known, nobody waits in vain.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"known length": true, "unknown length": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t, small())
				const piece = entry/2 + 1
				o := &origin{open: make(chan struct{}), answer: func(_ int, w http.ResponseWriter) error {
					if known {
						w.Header().Set("Content-Length", strconv.Itoa(4*piece))
					}
					w.Header().Set("Content-Type", "text/csv")
					w.WriteHeader(http.StatusOK)
					for i := range 4 {
						if _, err := io.WriteString(w, strings.Repeat(strconv.Itoa(i), piece)); err != nil {
							return err
						}
					}
					return nil
				}}
				q := o.request(keyOf("q"))
				c := gather(t.Context(), s, q, 10)
				close(o.open)
				all := c.all()
				r := results(all)
				if r[Bypass] != 9 || r[Miss]+r[Collapsed] != 1 {
					t.Errorf("%v", r)
				}
				for _, one := range all {
					if one.out.Result == Bypass {
						one.want(t, Bypass, "")
						one.wantField(t, "Cache-Status", "caddy-tinybird; fwd=bypass; detail=answer-size")
						continue
					}
					one.want(t, one.out.Result, strings.Repeat("0", piece)+strings.Repeat("1", piece)+strings.Repeat("2", piece)+strings.Repeat("3", piece))
					one.wantField(t, "Content-Type", "text/csv")
					if one.Flushed == known || (one.Header().Get("Content-Length") != "") != known {
						t.Errorf("flushed: %t, Content-Length %q", one.Flushed, one.Header().Get("Content-Length"))
					}
					if one.out.Upstream.UpstreamStatus != http.StatusOK {
						t.Error("the fetch is not counted")
					}
				}
				wantIdle(t, s)
				if _, bytes := s.Usage(); bytes != 0 {
					t.Errorf("%d bytes of it are kept", bytes)
				}
				ask(t.Context(), s, q).want(t, Bypass, "")
				time.Sleep(ttl) //nolint:forbidigo // the bubble's clock
				if again := ask(t.Context(), s, q); again.out.Result != Miss {
					t.Errorf("%s after the ttl", again.out.Result)
				}
			})
		})
	}
}

// TestLargeAnswerIsNotHeldUp: the client has each piece before Tinybird sends the next, and no more than the first is held here.
func TestLargeAnswerIsNotHeldUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, small())
		sent := make(chan string)
		o := &origin{answer: func(_ int, w http.ResponseWriter) error { return passOn(w, sent) }}
		p := newPipe()
		done := p.serve(t.Context(), s, o.request(keyOf("q")))
		first, second := strings.Repeat("a", entry), strings.Repeat("b", entry)
		sent <- first
		synctest.Wait() // nothing comes down yet: it might be all
		sent <- second
		p.wantPiece(t, first)
		p.wantPiece(t, second)
		synctest.Wait()
		if _, bytes := s.Usage(); bytes != 0 {
			t.Errorf("%d bytes are held", bytes)
		}
		for _, piece := range []string{"c", "d"} {
			sent <- piece
			p.wantPiece(t, piece)
		}
		close(sent)
		<-done
		p.want(t, Miss, first+second+"cd")
		if p.flushes != 4 {
			t.Errorf("%d flushes", p.flushes)
		}
	})
}

// TestLargeAnswerIsKnownByItsLength: nothing is gathered of an answer that says at once how large it is.
func TestLargeAnswerIsKnownByItsLength(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, small())
		sent := make(chan string)
		o := &origin{answer: func(_ int, w http.ResponseWriter) error {
			w.Header().Set("Content-Length", strconv.Itoa(entry+1))
			w.WriteHeader(http.StatusOK)
			return passOn(w, sent)
		}}
		p := newPipe()
		done := p.serve(t.Context(), s, o.request(keyOf("q")))
		synctest.Wait()
		if _, bytes := s.Usage(); bytes != 0 {
			t.Errorf("%d bytes are taken for it", bytes)
		}
		for _, piece := range []string{"a", strings.Repeat("b", entry)} {
			sent <- piece
			p.wantPiece(t, piece)
		}
		close(sent)
		<-done
		p.want(t, Miss, "a"+strings.Repeat("b", entry))
	})
}

// TestLargeAnswerBreaksOff: the client must see that it has not got all.
func TestLargeAnswerBreaksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, small())
		lost := fmt.Errorf("%w: %w", forward.ErrAborted, io.EOF)
		o := &origin{answer: func(_ int, w http.ResponseWriter) error {
			_, _ = io.WriteString(w, strings.Repeat("a", entry+1))
			return lost
		}}
		if c := ask(t.Context(), s, o.request(keyOf("q"))); !errors.Is(c.err, forward.ErrAborted) || errors.Is(c.err, context.Canceled) {
			t.Errorf("%v", c.err)
		}
		o.answer = func(_ int, w http.ResponseWriter) error {
			_, _ = io.WriteString(w, strings.Repeat("a", entry+1))
			panic("mistake")
		}
		if c := ask(t.Context(), s, o.request(keyOf("q2"))); !errors.Is(c.err, forward.ErrAborted) {
			t.Errorf("%v", c.err)
		}
		wantIdle(t, s)
	})
}

// TestLargeAnswersClientLeaves: Tinybird is told to stop, whether the client is writing or waiting.
func TestLargeAnswersClientLeaves(t *testing.T) {
	t.Parallel()
	for name, waits := range map[string]bool{"while it waits": true, "while it is written to": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t, small())
				stopped := make(chan error, 1)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				o := &origin{}
				q := o.request(keyOf("q"))
				q.Fetch = func(ctx context.Context, w http.ResponseWriter) (forward.Outcome, error) {
					var err error
					for range entry + 1 {
						if _, err = io.WriteString(w, "aa"); err != nil {
							break
						}
					}
					if waits && err == nil {
						<-ctx.Done()
						err = context.Cause(ctx)
					}
					stopped <- err
					return forward.Outcome{}, fmt.Errorf("%w: %w", forward.ErrAborted, err)
				}
				p := newPipe()
				if !waits {
					p.failAt = 2
				}
				done := p.serve(ctx, s, q)
				<-p.pieces
				if waits {
					go func() {
						for range p.pieces {
						}
					}()
					synctest.Wait()
					leave()
				} else {
					<-p.pieces
				}
				<-done
				if err := <-stopped; err == nil {
					t.Error("the fetch was not told")
				}
				if !errors.Is(p.err, forward.ErrAborted) || errors.Is(p.err, context.Canceled) != waits {
					t.Errorf("%v", p.err)
				}
				close(p.pieces)
				wantIdle(t, s)
			})
		})
	}
}

// TestLandedFlightIsNotJoined: an answer that is still being sent to a slow client is none for who asks when it is too old.
func TestLandedFlightIsNotJoined(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Options{})
		o := &origin{answer: numbered}
		p := newPipe()
		done := p.serve(t.Context(), s, o.request(keyOf("q")))
		synctest.Wait()
		time.Sleep(2 * ttl) //nolint:forbidigo // the bubble's clock
		ask(t.Context(), s, o.request(keyOf("q"))).want(t, Miss, "answer 2")
		<-p.pieces
		<-done
		p.want(t, Miss, "answer 1")
		wantIdle(t, s)
	})
}

// TestRefreshGrowsLarge: a refresh whose answer is too large is stopped, unless somebody waits for it by now.
func TestRefreshGrowsLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, small())
		o := &origin{answer: func(n int, w http.ResponseWriter) error {
			if n == 1 {
				return numbered(n, w)
			}
			for range 1 << 10 {
				if _, err := io.WriteString(w, strings.Repeat("a", entry)); err != nil {
					return err
				}
			}
			return errors.New("was not stopped")
		}}
		var told error
		q := o.request(keyOf("q"))
		q.Refreshed = func(_ forward.Outcome, err error) { told = err }
		ask(t.Context(), s, q).want(t, Miss, "answer 1")
		time.Sleep(ttl) //nolint:forbidigo // the bubble's clock
		ask(t.Context(), s, q).want(t, Stale, "answer 1")
		synctest.Wait()
		if !errors.Is(told, errNobody) {
			t.Errorf("told: %v", told)
		}
		ask(t.Context(), s, q).want(t, Bypass, "")
		wantIdle(t, s)
	})
}
