package forward

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/wire"
)

// nowhere is a client that takes everything and costs nothing.
type nowhere struct {
	io.Writer

	header http.Header
}

func (n nowhere) Header() http.Header { return n.header }
func (nowhere) WriteHeader(int)       {}

// One answer of two kilobytes over loopback; the upstream's own cost is part of both.
func BenchmarkForward(b *testing.B) {
	body := noise(2 << 10)
	base, err := url.Parse(upstream(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	if err != nil {
		b.Fatal(err)
	}
	tr := &http.Transport{DisableCompression: true}
	b.Cleanup(tr.CloseIdleConnections)
	direct := wire.New(wire.Options{Addr: base.Host, Dial: new(net.Dialer).DialContext})
	b.Cleanup(direct.Close)
	for name, o := range map[string]Options{
		"transport": {Base: base, Transport: tr},
		"direct":    {Base: base, Transport: tr, Direct: direct},
	} {
		b.Run(name, func(b *testing.B) {
			f, q := New(o), question()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Forward(b.Context(), nowhere{io.Discard, make(http.Header)}, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
