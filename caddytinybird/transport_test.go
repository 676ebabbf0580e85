package caddytinybird

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"
)

// TestTransportDefaults: the timeouts are there without a word in the config, what an operator sets goes over them, and Caddy's
// transport is given no read timeout: it would also run while a connection is idle, and cut off the request that
// comes next.
func TestTransportDefaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		raw            string
		headers, bytes time.Duration
		pool           int
	}{
		"defaults": {"", 35 * time.Second, 35 * time.Second, 256},
		"set": {
			`{"protocol":"http","response_header_timeout":"20s","read_timeout":"15s","keep_alive":{"idle_timeout":"10s"}}`,
			20 * time.Second, 15 * time.Second, 256,
		},
		"pool": {`{"protocol":"http","keep_alive":{"max_idle_conns_per_host":7}}`, 35 * time.Second, 35 * time.Second, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := &url.URL{Scheme: "https", Host: "api.tinybird.co"}
			got, err := loadTransport(newContext(t, storageDir(t)), json.RawMessage(tt.raw), base)
			if err != nil {
				t.Fatal(err)
			}
			if got.headers != tt.headers || got.bytes != tt.bytes {
				t.Errorf("%s to the headers, %s between bytes", got.headers, got.bytes)
			}
			if got.ReadTimeout != 0 {
				t.Errorf("Caddy's transport has a read timeout of %s", time.Duration(got.ReadTimeout))
			}
			if got.Transport.MaxIdleConnsPerHost != tt.pool || !got.TLSEnabled() || !got.Transport.DisableCompression {
				t.Errorf("pool %d, TLS %t, compression off %t", got.Transport.MaxIdleConnsPerHost, got.TLSEnabled(), got.Transport.DisableCompression)
			}
			if got.Transport.ForceAttemptHTTP2 {
				t.Error("HTTP/2 is on, which keeps megabytes of each answer that its client does not read")
			}
		})
	}
}
