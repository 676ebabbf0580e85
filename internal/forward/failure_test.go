package forward

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// An upstream that fails before the first byte of a body has reached the client is an error with a body.
func TestFailuresBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		serve  func(c *net.TCPConn)
		change func(*Options)
		status int
		code   apierr.Code
	}{
		{
			"hangs before the headers", func(c *net.TCPConn) { untilClosed(c) },
			func(o *Options) { o.HeaderTimeout = brief }, 504, apierr.UpstreamTimeout,
		},
		{
			"hangs within the headers", func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: appl")
				untilClosed(c)
			},
			func(o *Options) { o.HeaderTimeout = brief }, 504, apierr.UpstreamTimeout,
		},
		{
			"the transport's own limit", func(c *net.TCPConn) { untilClosed(c) },
			func(o *Options) { o.Transport.(*http.Transport).ResponseHeaderTimeout = brief }, 504, apierr.UpstreamTimeout,
		},
		{
			"hangs before the body", func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
				untilClosed(c)
			},
			func(o *Options) { o.IdleTimeout = brief }, 504, apierr.UpstreamTimeout,
		},
		{"closes without a word", func(*net.TCPConn) {}, nil, 502, apierr.UpstreamUnreachable},
		{"resets", func(c *net.TCPConn) { _ = c.SetLinger(0) }, nil, 502, apierr.UpstreamUnreachable},
		{"closes before the body", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Encoding: br\r\n\r\n")
		}, nil, 502, apierr.UpstreamUnreachable},
		// Cut off or whole? With the end of the connection as the end of the answer nobody can tell.
		{"ends with its connection", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"data\":[{\"a\":1},")
		}, nil, 502, apierr.UpstreamUnreachable},
		{"ends with its connection, HTTP/1.0", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n{\"data\":[]}")
		}, nil, 502, apierr.UpstreamUnreachable},
		{"refuses and ends with its connection", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n{\"error\":\"x\"}")
		}, nil, 400, apierr.QueryRefused},
		{"is no HTTP", func(c *net.TCPConn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") }, nil, 502, apierr.UpstreamUnreachable},
		{"huge headers", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-DB-Big: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
		}, func(o *Options) { o.Transport.(*http.Transport).MaxResponseHeaderBytes = 16 << 10 }, 502, apierr.UpstreamUnreachable},
		{"switches protocols", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			untilClosed(c)
		}, nil, 502, apierr.UpstreamUnreachable},
		{"two lengths", func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}")
		}, nil, 502, apierr.UpstreamUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *way) {
				base, _ := rawUpstream(t, c.serve)
				change := c.change
				if change == nil {
					change = func(*Options) {}
				}
				w, out, err := ask(t, t.forwarder(base, change), question())
				refusal := wantRefusal(t, err, c.status, c.code)
				if out.Err == nil || refusal.Err == nil {
					t.Error("the operator is not told why")
				}
				if len(w.Header()) != 0 || w.Body.Len() != 0 || w.Flushed {
					t.Errorf("something was written: %v %q", w.Header(), w.Body)
				}
			})
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		_, out, err := ask(t, t.forwarder("http://"+l.Addr().String()), question())
		wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
		if out.UpstreamStatus != 0 {
			t.Errorf("%+v", out)
		}
	})
}

func TestTLSFails(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		s.StartTLS()
		t.Cleanup(s.Close)
		_, _, err := ask(t, t.forwarder(s.URL), question()) // a certificate that nobody vouches for
		wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
	})
}

// A dial that takes too long is a service that is not there, not a slow query.
func TestDialTimeout(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		f := t.forwarder("http://127.0.0.1:1", func(o *Options) {
			o.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
			}}
		})
		_, _, err := ask(t, f, question())
		wantRefusal(t, err, 502, apierr.UpstreamUnreachable)
	})
}

// An answer that breaks off must look broken to the client, too, never like a short one.
func TestAnswerBreaksOff(t *testing.T) {
	t.Parallel()
	const (
		known   = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 100\r\n\r\nfirst row\n"
		chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\na\r\nfirst row\n\r\n"
	)
	for _, c := range []struct {
		name, text string
		end        func(c *net.TCPConn)
		cause      error
	}{
		{"known length, closed", known, func(*net.TCPConn) {}, io.ErrUnexpectedEOF},
		{"known length, hangs", known, func(c *net.TCPConn) { untilClosed(c) }, errIdleTimeout},
		{"chunked, closed", chunked, func(*net.TCPConn) {}, io.ErrUnexpectedEOF},
		{"chunked, hangs", chunked, func(c *net.TCPConn) { untilClosed(c) }, errIdleTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *way) {
				base, _ := rawUpstream(t, func(conn *net.TCPConn) {
					_, _ = io.WriteString(conn, c.text)
					c.end(conn)
				})
				f := t.forwarder(base, func(o *Options) { o.IdleTimeout = 4 * brief })
				front, ended := edge(t, f, question())
				resp, err := get(t.Context(), t, front)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if err == nil {
					t.Error("the client takes a part of the answer for the whole")
				}
				cause := c.cause
				if t.direct && errors.Is(cause, errIdleTimeout) {
					cause = os.ErrDeadlineExceeded // that of the connection
				}
				if err := receive(t, ended); !errors.Is(err, ErrAborted) || !errors.Is(err, cause) {
					t.Errorf("ended with %v, want %v because of %v", err, ErrAborted, cause)
				}
			})
		})
	}
}

// What follows may be read together with the first piece, or after it: both ends are right.
func TestNonsenseWithinTheBody(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		base, _ := rawUpstream(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\nzz\r\n")
		})
		front, ended := edge(t, t.forwarder(base), question())
		resp, err := get(t.Context(), t, front)
		status := 0
		if err == nil {
			status = resp.StatusCode
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil && status != http.StatusBadGateway {
			t.Errorf("the client takes a part of the answer for the whole, status %d", status)
		}
		if err := receive(t, ended); !errors.Is(err, ErrAborted) && !errors.As(err, new(*apierr.Error)) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestResetWithinTheBody(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		had := make(chan struct{})
		base, _ := rawUpstream(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n")
			<-had
			_ = c.SetLinger(0)
		})
		front, ended := edge(t, t.forwarder(base), question())
		resp, err := get(t.Context(), t, front)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, err = io.ReadFull(resp.Body, make([]byte, 1))
		close(had)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the client takes a part of the answer for the whole")
		}
		if err := receive(t, ended); !errors.Is(err, ErrAborted) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestClientLeavesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		arrived, cancelled := make(chan struct{}), make(chan struct{})
		f := t.forwarder(upstream(t, func(_ http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-r.Context().Done()
			close(cancelled)
		}))
		front, ended := edge(t, f, question())
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			resp, err := get(ctx, t, front)
			if err == nil {
				resp.Body.Close()
			}
		}()
		receive(t, arrived)
		leave()
		receive(t, cancelled)
		receive(t, left)
		err := receive(t, ended)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrAborted) || errors.As(err, new(*apierr.Error)) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestClientLeavesWithinTheAnswer(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		cancelled := make(chan struct{})
		f := t.forwarder(upstream(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "[")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(cancelled)
		}))
		front, ended := edge(t, f, question())
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		resp, err := get(ctx, t, front)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		leave()
		receive(t, cancelled)
		// Both: a context can end for other reasons than a client that left, and the client must not take what it
		// has for the whole.
		if err := receive(t, ended); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrAborted) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestCallersDeadline(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *way) {
		base, _ := rawUpstream(t, func(c *net.TCPConn) { untilClosed(c) })
		ctx, cancel := context.WithTimeout(t.Context(), brief)
		defer cancel()
		_, err := t.forwarder(base).Forward(ctx, httptest.NewRecorder(), question())
		wantRefusal(t, err, 504, apierr.UpstreamTimeout)
	})
}
