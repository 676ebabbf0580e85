package caddytinybird

import (
	"net/http"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestSiteOpensAnswersToCaches: no handler can keep a deferred header from overwriting what it says to caches, but the operator is told of it,
// once.
func TestSiteOpensAnswersToCaches(t *testing.T) {
	t.Parallel()
	stack := newStack(t, devstack.Options{})
	for header, told := range map[string]int{
		`header >Cache-Control "public, max-age=60"`:                 1,
		"header {\nCache-Control max-age=60\n-Server\n}":             1,
		"header -Cache-Control":                                      1,
		"header >CDN-Cache-Control max-age=60":                       1,
		"header >X-Accel-Expires 60":                                 1,
		"header >Cache-Control `private=\"Set-Cookie\", max-age=60`": 1,
		"":                                    0,
		"header -Server":                      0,
		`header Cache-Control "public"`:       0, // which the handler overwrites
		"header CDN-Cache-Control max-age=60": 0, // which it removes
		`header >Cache-Control "max-age=60, Private"`: 0,
		"header >CDN-Cache-Control no-store":          0,
		"header >X-Accel-Expires 0":                   0,
	} {
		s := newSite(t, stack, header+"\ntinybird {\nclerk {pk} {\nissuer {issuer}\n}\nsigning_key "+secretFile(t, stack.API.SigningKey())+
			"\nworkspace_id "+stack.API.WorkspaceID()+"\nupstream "+stack.APIURL+"\ntoken_endpoint /token\n"+
			"pipe top_pages {\nfixed_param organization_id {clerk.org.id}\n}\n}")
		core, logged := observer.New(zap.WarnLevel)
		tinybirdIn(s.server.Routes).log = zap.New(core)
		for _, target := range []string{"/v0/pipes/top_pages.json", "/token", "/v0/pipes/top_pages.csv"} {
			if got := s.ask(t, target, s.as(t, "ada")); got.StatusCode != http.StatusOK {
				t.Errorf("%s: status %d: %s", header, got.StatusCode, got.body)
			}
		}
		if n := logged.FilterMessageSnippet("the site lets caches keep").FilterLevelExact(zap.ErrorLevel).Len(); n != told || logged.Len() != told {
			t.Errorf("%s: told %d times: %v", header, n, logged.All())
		}
	}
}
