package caddytinybird

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
)

// TestProgress: what is waited for is told once the command has taken a second, and not when the wait was over before.
func TestProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out, "check")
		p.w = &out // as if it were a terminal
		p.step("the first")
		time.Sleep(600 * time.Millisecond) //nolint:forbidigo // in the bubble this is a step of its clock
		p.step("the second")
		time.Sleep(600 * time.Millisecond) //nolint:forbidigo // as above
		synctest.Wait()
		if out.String() != "check: the second ...\n" {
			t.Errorf("after a second: %q", out.String())
		}
		p.step("the third")
		synctest.Wait()
		if out.String() != "check: the second ...\ncheck: the third ...\n" {
			t.Errorf("then: %q", out.String())
		}
		p.step("the fourth")
		p.end()
		time.Sleep(time.Minute) //nolint:forbidigo // as above
		synctest.Wait()
	})
}

// TestNoProgressElsewhere: what is no terminal gets no progress, no marks and no colours.
func TestNoProgressElsewhere(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if newProgress(file, "check").w != nil || newProgress(new(bytes.Buffer), "check").w != nil {
		t.Error("progress is told to a file")
	}
	if s := styleFor(file); s != (preflight.Style{}) {
		t.Errorf("%+v", s)
	}
}

// Attack: whoever answers in Tinybird's place has a certificate whose names hold codes for the terminal, and an error quotes them. It need
// not be one that anybody trusts.
func TestAttackCodesInACertificate(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"\x1b[2J\nok"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s := newStack(t, devstack.Options{})
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, []byte("example.com {\n\ttinybird {\n\t\tclerk "+liveKey+"\n\t\tsigning_key "+secretFile(t, s.API.SigningKey())+
		"\n\t\tupstream "+strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)+"\n\t\tpipe top_pages {\n\t\t\tfixed_param organization_id {clerk.org.id}\n\t\t}\n\t}\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, status, err := command(t, "audit", "--config", config)
	if status != exitCouldNotRun || !strings.Contains(err.Error(), "certificate") || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("%d %q", status, err)
	}
}
