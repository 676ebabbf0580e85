package caddytinybird

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// loaded loads a transport.
func loaded(t testing.TB, base, raw string) *transport {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	got, err := loadTransport(newContext(t, storageDir(t)), json.RawMessage(raw), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if got.direct != nil {
			got.direct.Close()
		}
		_ = got.Cleanup()
	})
	return got
}

// askDirectly sends a request over a transport's own connections, and returns the status of the answer.
func askDirectly(t testing.TB, tr *transport) (int, error) {
	t.Helper()
	if tr.direct == nil {
		t.Fatal("there are no direct connections")
	}
	resp, err := tr.direct.Do(t.Context(), []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// What our own connections cannot do, Caddy's transport does.
func TestSettingsThatKeepTheTransport(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		base, raw string
		direct    bool
	}{
		"nothing set":                 {"https://api.tinybird.co", ``, true},
		"plain":                       {"http://127.0.0.1:7181", ``, true},
		"TLS settings":                {"https://api.tinybird.co", `{"tls":{"server_name":"a.example.com","insecure_skip_verify":true,"handshake_timeout":"3s"}}`, true},
		"a pool":                      {"https://api.tinybird.co", `{"keep_alive":{"idle_timeout":"10s","max_idle_conns":5,"probe_interval":"1s"}}`, true},
		"time limits":                 {"https://api.tinybird.co", `{"dial_timeout":"1s","read_timeout":"2s","response_header_timeout":"3s"}`, true},
		"addresses":                   {"https://api.tinybird.co", `{"local_address":"127.0.0.1","resolver":{"addresses":["127.0.0.1"]}}`, true},
		"HTTP/1.1":                    {"https://api.tinybird.co", `{"versions":["1.1"]}`, true},
		"HTTP/1.1 and 2":              {"https://api.tinybird.co", `{"versions":["1.1","2"]}`, false},
		"HTTP/2":                      {"https://api.tinybird.co", `{"versions":["2"]}`, false},
		"HTTP/2 without TLS":          {"http://127.0.0.1:7181", `{"versions":["h2c"]}`, false},
		"a proxy":                     {"https://api.tinybird.co", `{"network_proxy":{"from":"url","url":"http://127.0.0.1:3128"}}`, false},
		"no proxy of the environment": {"https://api.tinybird.co", `{"network_proxy":{"from":"none"}}`, false},
		"a proxy of the request's":    {"https://api.tinybird.co", `{"network_proxy":{"from":"url","url":"{http.request.header.x-proxy}"}}`, false},
		"a proxy, as it was written":  {"https://api.tinybird.co", `{"forward_proxy_url":"http://127.0.0.1:3128"}`, false},
		"nothing is kept":             {"https://api.tinybird.co", `{"keep_alive":{"enabled":false}}`, false},
		"none is kept":                {"https://api.tinybird.co", `{"keep_alive":{"max_idle_conns_per_host":-1}}`, false},
		"none of all is kept":         {"https://api.tinybird.co", `{"keep_alive":{"max_idle_conns":-1}}`, false},
		"kept for ever":               {"https://api.tinybird.co", `{"keep_alive":{"idle_timeout":"-1s"}}`, false},
		"so many at once":             {"https://api.tinybird.co", `{"max_conns_per_host":5}`, false},
		"time to write":               {"https://api.tinybird.co", `{"write_timeout":"90s"}`, false},
		"a name of the request's":     {"https://api.tinybird.co", `{"tls":{"server_name":"{http.request.host}"}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := tt.raw
			if raw != "" {
				raw = `{"protocol":"http",` + raw[1:]
			}
			got := loaded(t, tt.base, raw)
			if (got.direct != nil) != tt.direct {
				t.Errorf("direct connections: %v", got.direct != nil)
			}
			if got.direct != nil && (got.direct.TLS != nil) != strings.HasPrefix(tt.base, "https:") {
				t.Errorf("TLS: %v", got.direct.TLS != nil)
			}
		})
	}
}

// A proxy that the environment names is used, whatever the config says, and only for the hosts that it is for. net/http looks at
// the environment once, so that this takes processes of their own.
func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	if want := os.Getenv("TEST_DIRECT"); want != "" {
		if got := fmt.Sprint(loaded(t, "https://api.tinybird.co", "").direct != nil); got != want {
			t.Errorf("direct connections: %s, want %s", got, want)
		}
		// Attack: a proxy of the environment reads the tokens of requests without TLS, the signing key among those of audit, and answers
		// with rows of its own.
		for _, base := range []string{"http://10.0.0.1:7181", "http://tinybird.internal"} {
			r := httptest.NewRequest(http.MethodGet, base, http.NoBody)
			for _, raw := range []string{"", `{"protocol":"http","forward_proxy_url":""}`} { // "" is none to Caddy, which then asks the environment
				got := loaded(t, base, raw)
				if u, err := got.Transport.Proxy(r); u != nil || err != nil || got.direct == nil {
					t.Errorf("%s %s: proxy %v, %v", base, raw, u, err)
				}
			}
			got := loaded(t, base, `{"protocol":"http","network_proxy":{"from":"url","url":"http://proxy.internal:3128"}}`)
			if u, err := got.Transport.Proxy(r); u == nil || u.Host != "proxy.internal:3128" || err != nil {
				t.Errorf("%s: the configured proxy is not used: %v, %v", base, u, err)
			}
		}
		return
	}
	for name, env := range map[string][]string{
		"a proxy":           {"HTTPS_PROXY=http://127.0.0.1:3128", "TEST_DIRECT=false"},
		"in small letters":  {"https_proxy=http://127.0.0.1:3128", "TEST_DIRECT=false"},
		"for other schemes": {"HTTP_PROXY=http://127.0.0.1:3128", "TEST_DIRECT=true"},
		"not for this host": {"HTTPS_PROXY=http://127.0.0.1:3128", "NO_PROXY=tinybird.co", "TEST_DIRECT=true"},
		"for both":          {"HTTP_PROXY=http://127.0.0.1:3128", "HTTPS_PROXY=http://127.0.0.1:3128", "TEST_DIRECT=false"},
		"none":              {"TEST_DIRECT=true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$", "-test.v")
			child.Env = append(os.Environ(), "HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=", "NO_PROXY=", "no_proxy=")
			child.Env = append(child.Env, env...)
			if out, err := child.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestProxyOfTheEnvironment")) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// secureServer starts a TLS server that tells on the channel which server name each request was for. It returns its address and the
// file with its certificate, which is for example.com and 127.0.0.1.
func secureServer(t testing.TB, config *tls.Config) (base, ca string, names <-chan string) {
	t.Helper()
	seen := make(chan string, 16)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen <- r.TLS.ServerName
	}))
	s.TLS = config
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, pemFile(t, "CERTIFICATE", s.Certificate().Raw), seen
}

func pemFile(t testing.TB, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// clientCertificate writes a client's certificate and its key to files.
func clientCertificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, "CERTIFICATE", der), pemFile(t, "PRIVATE KEY", encoded)
}

// TLS settings hold for our own connections. Without them only the system's authorities are trusted.
func TestDirectTLSSettings(t *testing.T) {
	t.Parallel()
	cert, key := clientCertificate(t)
	for name, tt := range map[string]struct {
		tls    string // CA stands for the file with the server's certificate
		server *tls.Config
		ok     bool
		sni    string
	}{
		"nothing set":                   {`{}`, nil, false, ""},
		"an authority":                  {`{"ca":{"provider":"file","pem_files":["CA"]}}`, nil, true, ""},
		"an authority, as it was":       {`{"root_ca_pem_files":["CA"]}`, nil, true, ""},
		"another authority":             {`{"ca":{"provider":"file","pem_files":["` + cert + `"]}}`, nil, false, ""},
		"no verification":               {`{"insecure_skip_verify":true}`, nil, true, ""},
		"a server's name":               {`{"ca":{"provider":"file","pem_files":["CA"]},"server_name":"example.com"}`, nil, true, "example.com"},
		"another server's name":         {`{"ca":{"provider":"file","pem_files":["CA"]},"server_name":"example.org"}`, nil, false, ""},
		"without a certificate":         {`{"insecure_skip_verify":true}`, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, false, ""},
		"with a certificate":            {`{"insecure_skip_verify":true,"client_certificate_file":"` + cert + `","client_certificate_key_file":"` + key + `"}`, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, true, ""},
		"an old server":                 {`{"insecure_skip_verify":true}`, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, false, ""},
		"no curve that the server has":  {`{"insecure_skip_verify":true,"curves":["x25519"]}`, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}, false, ""},
		"a server that prefers HTTP/2":  {`{"insecure_skip_verify":true}`, &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, true, ""},
		"a server that has HTTP/2 only": {`{"insecure_skip_verify":true}`, &tls.Config{NextProtos: []string{"h2"}}, true, ""}, // it is not asked which
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, ca, names := secureServer(t, tt.server)
			tr := loaded(t, base, `{"protocol":"http","tls":`+strings.ReplaceAll(tt.tls, "CA", ca)+`}`)
			status, err := askDirectly(t, tr)
			if !tt.ok {
				if err == nil || len(names) > 0 {
					t.Errorf("answered with %d; %d requests arrived", status, len(names))
				}
				return
			}
			if err != nil || status != http.StatusOK {
				t.Fatalf("%d, %v", status, err)
			}
			if got := <-names; got != tt.sni {
				t.Errorf("asked for the server %q, want %q", got, tt.sni)
			}
		})
	}
}

// The name that is asked for is the upstream's, if none is set.
func TestDirectServerName(t *testing.T) {
	t.Parallel()
	if got := loaded(t, "https://api.us-east.aws.tinybird.co:8443", ``).direct; got.TLS.ServerName != "api.us-east.aws.tinybird.co" || got.Addr != "api.us-east.aws.tinybird.co:8443" {
		t.Errorf("%s, at %s", got.TLS.ServerName, got.Addr)
	}
	for base, want := range map[string]string{
		"https://api.tinybird.co": "api.tinybird.co:443", "http://127.0.0.1": "127.0.0.1:80", "http://[::1]": "[::1]:80", "https://[::1]:99": "[::1]:99",
	} {
		if got := loaded(t, base, ``).direct.Addr; got != want {
			t.Errorf("%s: %s, want %s", base, got, want)
		}
	}
}

// Bounds of the pool and of time hold for our own connections, and so do Caddy's defaults.
func TestDirectBounds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		raw                           string
		headers, bytes, idle, shaking time.Duration
		pool                          int
		header                        int64
	}{
		"defaults": {`{}`, 35 * time.Second, 35 * time.Second, 2 * time.Minute, 0, 256, 10 << 20},
		"set": {
			`{"response_header_timeout":"20s","read_timeout":"15s","max_response_header_size":1234,"tls":{"handshake_timeout":"3s"},"keep_alive":{"idle_timeout":"10s","max_idle_conns_per_host":7}}`,
			20 * time.Second, 15 * time.Second, 10 * time.Second, 3 * time.Second, 7, 1234,
		},
		"a smaller bound for all": {`{"keep_alive":{"max_idle_conns":5}}`, 35 * time.Second, 35 * time.Second, 2 * time.Minute, 0, 5, 10 << 20},
		"a larger bound for all":  {`{"keep_alive":{"max_idle_conns":5000}}`, 35 * time.Second, 35 * time.Second, 2 * time.Minute, 0, 256, 10 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := loaded(t, "https://api.tinybird.co", strings.Replace(strings.Replace(tt.raw, "{", `{"protocol":"http",`, 1), ",}", "}", 1)).direct
			if c.HeaderTimeout != tt.headers || c.BodyTimeout != tt.bytes || c.IdleTimeout != tt.idle || c.HandshakeTimeout != tt.shaking || c.MaxIdle != tt.pool || c.MaxHeader != tt.header {
				t.Errorf("%+v", c.Options)
			}
		})
	}
}

func TestDirectMaxHeader(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", 5000))
	}))
	t.Cleanup(s.Close)
	if status, err := askDirectly(t, loaded(t, s.URL, `{"protocol":"http","max_response_header_size":4000}`)); err == nil {
		t.Errorf("answered with %d", status)
	}
	if status, err := askDirectly(t, loaded(t, s.URL, `{"protocol":"http","max_response_header_size":8000}`)); status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
}

// nameServer starts a DNS server that knows one address for every name, or says nothing at all.
func nameServer(t testing.TB, silent bool) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if silent || m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return c.LocalAddr().String()
}

func TestDirectResolver(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	tr := loaded(t, "http://tinybird.internal:"+port, `{"protocol":"http","resolver":{"addresses":["udp/`+nameServer(t, false)+`"]}}`)
	if status, err := askDirectly(t, tr); status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
}

// A connection that takes too long to make is a service that is not there, by either way: forwarding tells the error from a query that
// takes too long, and rows that were not sent from rows of which nobody knows.
func TestDialErrorsAreKnown(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	for name, tt := range map[string]struct {
		base, raw string
		timeout   bool
	}{
		"nobody listens": {"http://" + l.Addr().String(), `{"protocol":"http"}`, false},
		"too late":       {"http://tinybird.internal:1", `{"protocol":"http","dial_timeout":"100ms","resolver":{"addresses":["udp/` + nameServer(t, true) + `"]}}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := loaded(t, tt.base, tt.raw)
			_, direct := askDirectly(t, tr)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.base, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, byTransport := tr.RoundTrip(r)
			if byTransport == nil {
				_ = resp.Body.Close()
			}
			for _, err := range []error{direct, byTransport} {
				if op := (*net.OpError)(nil); !errors.As(err, &op) || op.Op != "dial" {
					t.Errorf("%T: %v", err, err)
				}
				if errors.Is(err, context.Canceled) || tt.timeout && !strings.Contains(err.Error(), "timeout") {
					t.Errorf("ended with %v", err)
				}
			}
		})
	}
}

func TestDirectLocalAddress(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	from := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { from <- r.RemoteAddr }))
	t.Cleanup(s.Close)
	if status, err := askDirectly(t, loaded(t, s.URL, `{"protocol":"http","local_address":"127.0.0.2"}`)); status != 200 || err != nil {
		t.Fatalf("%d, %v", status, err)
	}
	if got := <-from; !strings.HasPrefix(got, "127.0.0.2:") {
		t.Errorf("came from %s", got)
	}
}

// A server that accepts a connection and then says nothing does not hold a request for longer than its handshake may take.
func TestDirectHandshakeTimeout(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepted by the system, and by nobody else
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, err = askDirectly(t, loaded(t, "https://"+l.Addr().String(), `{"protocol":"http","tls":{"handshake_timeout":"100ms"}}`))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended with %v", err)
	}
}
