//go:build unix

package wire

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// quick answers every request with the same bytes, two kilobytes of rows, and allocates nothing for it.
func quick(p *peer) {
	rows := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Wed, 25 Nov 2026 22:00:00 GMT\r\n" +
		"X-Db-Exec: 0.001\r\nContent-Length: 2000\r\n\r\n" + strings.Repeat("x", 2000))
	buf := make([]byte, 4<<10)
	for have := 0; ; {
		n, err := p.Read(buf[have:])
		if err != nil {
			return
		}
		if have += n; bytes.HasSuffix(buf[:have], []byte("\r\n\r\n")) {
			have = 0
			if _, err := p.Write(rows); err != nil {
				return
			}
		}
	}
}

// BenchmarkRoundTrip compares this package with net/http's transport: one request after the other, and as many at once as there are
// processors, each read to its end. The server is in the same process, and its time counts for both.
func BenchmarkRoundTrip(b *testing.B) {
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": serverTLS()} {
		s := serveTCP(b, config, quick)
		o := Options{Addr: s.addr, Dial: new(net.Dialer).DialContext}
		tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: DefaultMaxIdle}
		base := "http://" + s.addr
		if config != nil {
			secure(&o)
			tr.TLSClientConfig, base = o.TLS.Clone(), "https://"+s.addr
		}
		c := New(o)
		b.Cleanup(c.Close)
		b.Cleanup(tr.CloseIdleConnections)
		question := []byte("GET /v0/pipes/top_pages.json?days=7 HTTP/1.1\r\nHost: a\r\nUser-Agent: bench\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n\r\n")
		ways := map[string]func() (*http.Response, error){
			"wire": func() (*http.Response, error) { return c.Do(b.Context(), question) },
			"transport": func() (*http.Response, error) {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, base+"/v0/pipes/top_pages.json?days=7", http.NoBody)
				if err != nil {
					return nil, err
				}
				r.Header["User-Agent"], r.Header["Accept"], r.Header["Accept-Encoding"] = []string{"bench"}, []string{"application/json"}, []string{"identity"}
				return tr.RoundTrip(r)
			},
		}
		for _, way := range []string{"wire", "transport"} {
			ask := ways[way]
			b.Run(name+"/"+way, func(b *testing.B) {
				b.ReportAllocs()
				buf := make([]byte, 32<<10)
				for b.Loop() {
					roundTrip(b, ask, buf)
				}
			})
			b.Run(name+"/"+way+" at once", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					buf := make([]byte, 32<<10)
					for pb.Next() {
						roundTrip(b, ask, buf)
					}
				})
			})
		}
	}
}

func roundTrip(b *testing.B, ask func() (*http.Response, error), buf []byte) {
	b.Helper()
	resp, err := ask()
	if err != nil {
		b.Error(err)
		return
	}
	n := 0
	for err == nil {
		var some int
		some, err = resp.Body.Read(buf)
		n += some
	}
	if err != io.EOF || n != 2000 { //nolint:errorlint // it must be bare
		b.Errorf("%d bytes, %v", n, err)
	}
	_ = resp.Body.Close()
}
