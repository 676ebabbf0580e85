package tinybird

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

func BenchmarkAuthorize(b *testing.B) {
	p, who := newPolicy(b, tenantConfig()), acme()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Authorize("top_pages", "json", who); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	b.Run("cached", func(b *testing.B) {
		m, _ := newMinter(b, MinterOptions{})
		g := tenantGrant(b)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := m.Mint(g, 100); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("signed", func(b *testing.B) {
		m, _ := newMinter(b, MinterOptions{MaxTokens: 100})
		grants := make([]*Grant, 1000)
		for i := range grants {
			grants[i] = tenantGrant(b)
			grants[i].TokenName = "org_" + strconv.Itoa(i)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, _, err := m.Mint(grants[i%len(grants)], 100); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	g := tenantGrant(b)
	b.Run("query", func(b *testing.B) {
		r := request(b, http.MethodGet, "date_from=2026-01-01&days=7&token=x", "")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Build(nil, r, g, RequestLimits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("body", func(b *testing.B) {
		w := httptest.NewRecorder()
		b.ReportAllocs()
		for b.Loop() {
			r := request(b, http.MethodPost, "", `{"date_from":"2026-01-01","days":7,"paths":["/","/pricing"],"token":"x"}`)
			if _, err := Build(w, r, g, RequestLimits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
