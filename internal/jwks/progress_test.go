package jwks

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
)

// TestDNSThatHangs: no answer in time is no matter of the issuer or a firewall, if it was the name that was asked for.
func TestDNSThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{Resolver: resolver}).DialContext}}
		_, err := Fetch(t.Context(), Options{URL: testURL, Client: client})
		if err == nil || !strings.HasPrefix(err.Error(), "fetch key set: DNS gave no address of the host: ") {
			t.Error(err)
		}
	})
}

// TestProxies: what a proxy does is told apart from what the issuer does, and its password is told nobody, though the proxy repeats it.
func TestProxies(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
	}{
		"wants a password": {
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) },
			"connected to a proxy, but not through it to the issuer: the proxy refuses with status 407",
		},
		"repeats what it was sent": {
			func(w http.ResponseWriter, r *http.Request) {
				hijack(w, "HTTP/1.1 403 "+r.Header.Get("Proxy-Authorization")+"\r\n\r\n")
			},
			"connected to a proxy, but not through it to the issuer: the proxy refuses with status 403",
		},
		"closes": {
			func(w http.ResponseWriter, _ *http.Request) { hijack(w, "") },
			"connected to a proxy, but not through it to the issuer: ",
		},
		"ends within": {
			func(w http.ResponseWriter, _ *http.Request) { hijack(w, "HTTP/1.1 200 OK\r\n\r\n") },
			"connected, but TLS failed: ",
		},
	} {
		srv := httptest.NewServer(http.HandlerFunc(tt.answer))
		u, err := url.Parse(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("edge", "marked-secret")
		s := New(Options{URL: testURL})
		tr, ok := s.client.Transport.(*http.Transport)
		if !ok {
			t.Fatal("another transport")
		}
		tr.Proxy = http.ProxyURL(u)
		err = s.fetch(t.Context()).err
		if err == nil || !strings.HasPrefix(err.Error(), "fetch key set: "+tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "marked") || strings.Contains(err.Error(), "Basic")) {
			t.Errorf("%s: the password is told: %v", name, err)
		}
		s.Close()
		srv.Close()
	}
}

func hijack(w http.ResponseWriter, says string) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_, _ = io.WriteString(conn, says)
		_ = conn.Close()
	}
}
