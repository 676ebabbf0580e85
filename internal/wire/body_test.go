//go:build unix

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// An answer that is not read to its end takes its connection with it: what is left of it would be the next one's beginning.
func TestUnreadBody(t *testing.T) {
	t.Parallel()
	for name, bytesRead := range map[string]int{"nothing read": 0, "a part read": 3, "all but a byte": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *way) {
				s := serveTCP(t, t.config, func(p *peer) {
					for path := p.request(); path != ""; path = p.request() {
						if p.number == 1 {
							p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n/first\r\n0\r\n\r\n")
						} else {
							p.send(answer(path))
						}
					}
				})
				c := client(t, s, t.change)
				resp, err := c.Do(t.Context(), text("/first"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, bytesRead)); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if err := resp.Body.Close(); err != nil {
						t.Error(err)
					}
				}
				wantIdle(t, c, 0)
				receive(t, s.closed)
				if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Errorf("read %d bytes after Close, %v", n, err)
				}
				mustGet(t, c, "/second")
			})
		})
	}
}

// What is done with an answer that is over does nothing to the request that has its connection now.
func TestLateCloseDisturbsNobody(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		arrived, proceed := make(chan struct{}), make(chan struct{})
		s := serveTCP(t, t.config, func(p *peer) {
			p.send(answer(p.request()))
			path := p.request()
			close(arrived)
			<-proceed
			p.send(answer(path))
			echo(p)
		})
		c := client(t, s, t.change)
		resp, err := c.Do(t.Context(), text("/first"))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "/first" {
			t.Fatalf("%q, %v", body, err)
		}
		second := make(chan error, 1)
		go func() {
			body, err := get(t.Context(), c, "/second")
			if body != "/second" && err == nil {
				err = errors.New("answered with " + body)
			}
			second <- err
		}()
		receive(t, arrived)
		a := resp.Body.(*Answer)
		a.GiveUpAfter(time.Nanosecond)
		if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // it must be bare
			t.Errorf("read %d bytes after the end, %v", n, err)
		}
		for range 2 {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
		wantIdle(t, c, 0)
		close(proceed)
		if err := receive(t, second); err != nil {
			t.Error(err)
		}
		wantIdle(t, c, 1)
		mustGet(t, c, "/third")
		if got := s.accepted.Load(); got != 1 {
			t.Errorf("%d connections", got)
		}
	})
}

// However the body is read, it is the same, and its end gives the connection back once.
func TestWaysToRead(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789", 2*bufferSize/10)
	s := serveTCP(t, nil, func(p *peer) {
		for path := p.request(); path != ""; path = p.request() {
			if path == "/chunked" {
				p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				for rest := body; rest != ""; rest = rest[min(len(rest), 1000):] {
					piece := rest[:min(len(rest), 1000)]
					p.send(fmt.Sprintf("%x", len(piece)) + "\r\n" + piece + "\r\n")
				}
				p.send("0\r\n\r\n")
				continue
			}
			p.send(answer(body))
		}
	})
	c := client(t, s)
	for name, read := range map[string]func(io.Reader) ([]byte, error){
		"at once":      io.ReadAll,
		"byte by byte": func(r io.Reader) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(r)) },
		"by halves":    func(r io.Reader) ([]byte, error) { return io.ReadAll(iotest.HalfReader(r)) },
		"into as much as there is": func(r io.Reader) ([]byte, error) {
			b := make([]byte, len(body))
			if _, err := io.ReadFull(r, b); err != nil {
				return nil, err
			}
			if n, err := r.Read(make([]byte, 8)); n != 0 || err != io.EOF {
				return nil, errors.New("not at its end")
			}
			return b, nil
		},
		"with empty reads": func(r io.Reader) ([]byte, error) {
			if n, err := r.Read(nil); n != 0 || err != nil {
				return nil, errors.New("an empty read is not empty")
			}
			return io.ReadAll(r)
		},
	} {
		for _, path := range []string{"/length", "/chunked"} {
			resp, err := c.Do(t.Context(), text(path))
			if err != nil {
				t.Fatal(err)
			}
			got, err := read(resp.Body)
			if err != nil || !bytes.Equal(got, []byte(body)) {
				t.Errorf("%s, %s: %d bytes, %v", name, path, len(got), err)
			}
			_ = resp.Body.Close()
			wantIdle(t, c, 1)
		}
	}
	if got := s.accepted.Load(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

// A header may be as large as the bound, not a byte larger, and the bound is not the body's.
func TestMaxHeader(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		for _, limit := range []int{100, bufferSize, 3*bufferSize + 7} {
			s := serveTCP(t, t.config, func(p *peer) {
				for path := p.request(); path != ""; path = p.request() {
					size := limit
					if path == "/larger" {
						size++
					}
					head := "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nX: "
					p.send(head + strings.Repeat("x", size-len(head)-4) + "\r\n\r\n" + strings.Repeat("b", 100_000))
				}
			})
			c := client(t, s, t.change, func(o *Options) { o.MaxHeader = int64(limit) })
			for range 3 {
				if body, err := get(t.Context(), c, "/"); err != nil || len(body) != 100_000 {
					t.Errorf("of %d: %d bytes, %v", limit, len(body), err)
				}
			}
			if got := s.accepted.Load(); got != 1 {
				t.Errorf("%d connections", got)
			}
			if _, err := c.Do(t.Context(), text("/larger")); !errors.Is(err, errHeaderSize) {
				t.Errorf("more than %d: %v", limit, err)
			}
			wantIdle(t, c, 0)
			receive(t, s.closed)
		}
	})
}
