package bapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/egress"
)

func TestHangingServer(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{"before the header": "", "in the body": `{"cookies":[`} {
		for method, ask := range calls {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				gone := make(chan struct{})
				srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
					defer close(gone)
					_, _ = io.Copy(io.Discard, r.Body) // or net/http does not notice that the client is gone
					if before != "" {
						_, _ = io.WriteString(w, before)
						_ = http.NewResponseController(w).Flush()
					}
					<-r.Context().Done()
				})
				_, err := ask(t.Context(), newClient(t, Options{URL: srv.URL, Timeout: 200 * time.Millisecond}))
				e := wantError(t, err)
				if e.Status != 0 || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no complete answer within 200ms") {
					t.Fatal(err)
				}
				<-gone
			})
		}
	}
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	for method, ask := range calls {
		ctx, cancel := context.WithCancel(t.Context())
		srv := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			cancel()
			<-r.Context().Done()
		})
		_, err := ask(ctx, newClient(t, Options{URL: srv.URL, Timeout: time.Hour}))
		if e := wantError(t, err); e.Status != 0 || !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "within") {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// raw starts a server that answers every connection by hand.
func raw(t *testing.T, answer func(net.Conn)) (base string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	t.Cleanup(func() { l.Close() })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	return "http://" + l.Addr().String()
}

// readRequest reads a whole request, and returns its first line and its header.
func readRequest(conn net.Conn) (line, header string) {
	b := bufio.NewReader(conn)
	line, _ = b.ReadString('\n')
	rest := &strings.Builder{}
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(line), io.TeeReader(b, rest))))
	if err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	header, _, _ = strings.Cut(rest.String(), "\r\n\r\n")
	return line, header
}

// Attack: what is at the other end sends back what it was sent, and the error ends up in a log.
func TestErrorsHoldNoSecret(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(net.Conn){
		"the request line, as an echo service does": func(conn net.Conn) {
			line, header := readRequest(conn)
			_, _ = io.WriteString(conn, line+header+"\r\n\r\n")
		},
		"the request line as a status": func(conn net.Conn) {
			line, header := readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 "+strings.TrimSpace(line)+strings.ReplaceAll(header, "\r\n", " ")+"\r\n\r\n")
		},
		"the header as a status text": func(conn net.Conn) {
			_, header := readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 401 "+strings.ReplaceAll(header, "\r\n", " ")+"\r\nContent-Length: 0\r\n\r\n")
		},
		"a broken header": func(conn net.Conn) {
			line, header := readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+line+strings.ReplaceAll(header, ":", "")+"\r\n\r\n")
		},
		"a length": func(conn net.Conn) {
			_, header := readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: "+strings.ReplaceAll(header, "\r\n", " ")+"\r\n\r\n")
		},
		"a transfer encoding": func(conn net.Conn) {
			_, header := readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: "+strings.ReplaceAll(header, "\r\n", " ")+"\r\n\r\n")
		},
		"a redirect to where it came from": func(conn net.Conn) {
			line, header := readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 302 Found\r\nLocation: http://\x01"+strings.Fields(line)[1]+"\r\nX-"+header+"\r\n\r\n")
		},
		"half an answer": func(conn net.Conn) {
			_, _ = readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"cookies\":[")
		},
		"nothing": func(conn net.Conn) { _, _ = readRequest(conn) },
	} {
		for method, ask := range calls {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				_, err := ask(t.Context(), newClient(t, Options{URL: raw(t, answer)}))
				if e := wantError(t, err); e.Status == http.StatusOK {
					t.Errorf("no complete answer has status 200: %v", err)
				}
			})
		}
	}
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	for method, ask := range calls {
		_, err := ask(t.Context(), newClient(t, Options{URL: srv.URL}))
		if e := wantError(t, err); e.Status != 0 || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// Attack: somebody in the way, with another certificate or none.
func TestUntrustedCertificate(t *testing.T) {
	t.Parallel()
	var visited atomic.Bool
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited.Store(true) }))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	plain := serve(t, func(http.ResponseWriter, *http.Request) { visited.Store(true) })
	for method, ask := range calls {
		_, err := ask(t.Context(), newClient(t, Options{URL: srv.URL}))
		e := wantError(t, err)
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || e.Status != 0 || visited.Load() {
			t.Errorf("%s: %v, visited %v", method, err, visited.Load())
		}
		_, err = ask(t.Context(), newClient(t, Options{URL: "https" + strings.TrimPrefix(plain.URL, "http")}))
		if e := wantError(t, err); !errors.Is(err, http.ErrSchemeMismatch) || e.Status != 0 || visited.Load() {
			t.Errorf("%s without TLS: %v, visited %v", method, err, visited.Load())
		}
		if _, err = ask(t.Context(), newClient(t, Options{URL: srv.URL, Client: srv.Client()})); !visited.Swap(false) {
			t.Errorf("%s with the right certificate: %v", method, err)
		}
	}
}

// Attack: a proxy in the environment reads the key of a request without TLS.
func TestProxyOnlyForTLS(t *testing.T) {
	t.Parallel()
	proxy := egress.Tunnel(func(*http.Request) (*url.URL, error) { return url.Parse("http://proxy.example.com:3128") })
	for base, want := range map[string]bool{"https://api.clerk.com": true, "http://10.0.0.1:4000": false} {
		r := httptest.NewRequest(http.MethodGet, base, http.NoBody)
		if u, err := proxy(r); err != nil || (u != nil) != want {
			t.Errorf("%s: proxy %v, %v", base, u, err)
		}
	}
	tr, ok := newClient(t, Options{}).http.Transport.(*http.Transport)
	if !ok || tr.Proxy == nil {
		t.Fatal("the proxy of the environment is not used")
	}
	if u, err := tr.Proxy(httptest.NewRequest(http.MethodGet, "http://10.0.0.1:4000", http.NoBody)); u != nil || err != nil {
		t.Errorf("proxy %v, %v", u, err)
	}
}

func TestErrorsOfATransport(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"unknown kind": {errors.New("marker"), "no HTTP came"},
		"name":         {&net.DNSError{Err: "no such host", Name: "api.clerk.com", IsNotFound: true}, "lookup api.clerk.com: no such host"},
		"not TLS":      {tls.RecordHeaderError{Msg: "not TLS"}, "tls: not TLS"},
		"time":         {context.DeadlineExceeded, "deadline exceeded"},
	} {
		client := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, c.err })}
		for method, ask := range calls {
			_, err := ask(t.Context(), newClient(t, Options{Client: client}))
			if e := wantError(t, err); e.Status != 0 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: %v", name, method, err)
			}
		}
	}
}
