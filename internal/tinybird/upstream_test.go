package tinybird

import (
	"net/url"
	"strings"
	"testing"
)

func TestRegionURL(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"eu_shared": "https://api.tinybird.co", "gcp-europe-west3": "https://api.tinybird.co",
		"us-east-aws":   "https://api.us-east.aws.tinybird.co", // not us-east-1.aws
		"aws-us-east-1": "https://api.us-east.aws.tinybird.co",
		"aws-us-west-2": "https://api.us-west-2.aws.tinybird.co",
		"local":         "http://localhost:7181",
	} {
		if got, ok := RegionURL(host); !ok || got != want {
			t.Errorf("RegionURL(%q) = %q, %v", host, got, ok)
		}
	}
	for _, unknown := range []string{"", "LOCAL", "aws-ap-east-1", "evil.example", "eu_shared "} {
		if got, ok := RegionURL(unknown); ok || got != "" {
			t.Errorf("RegionURL(%q) = %q", unknown, got)
		}
	}
	for host, u := range regions {
		if _, err := ParseUpstream(u); err != nil || !validHostKey(host) {
			t.Errorf("region %s: %v", host, err)
		}
	}
}

func TestParseUpstream(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://api.tinybird.co":             "https://api.tinybird.co",
		"https://api.tinybird.co/":            "https://api.tinybird.co",
		"HTTPS://API.Tinybird.co:443":         "https://api.tinybird.co:443",
		"https://tb.example.com/base/path_1/": "https://tb.example.com/base/path_1",
		"https://203.0.113.7":                 "https://203.0.113.7",
		"https://[2001:db8::1]:8443":          "https://[2001:db8::1]:8443",
		"http://localhost:7181":               "http://localhost:7181",
		"http://tinybird.localhost":           "http://tinybird.localhost",
		"http://tinybird-local:7181":          "http://tinybird-local:7181",
		"http://tiny_bird":                    "http://tiny_bird",
		"http://host.docker.internal:7181":    "http://host.docker.internal:7181",
		"http://box.local":                    "http://box.local",
		"http://127.0.0.1:7181":               "http://127.0.0.1:7181",
		"http://127.8.9.10":                   "http://127.8.9.10",
		"http://10.1.2.3":                     "http://10.1.2.3",
		"http://172.31.0.1":                   "http://172.31.0.1",
		"http://192.168.1.1":                  "http://192.168.1.1",
		"http://[::1]:7181":                   "http://[::1]:7181",
		"http://[fd00::1]":                    "http://[fd00::1]",
		"http://[::ffff:10.0.0.1]":            "http://[::ffff:10.0.0.1]",
	} {
		u, err := ParseUpstream(raw)
		if err != nil {
			t.Errorf("ParseUpstream(%q): %v", raw, err)
			continue
		}
		if u.String() != want {
			t.Errorf("ParseUpstream(%q) = %s, want %s", raw, u, want)
		}
	}
}

func TestParseUpstreamRefuses(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"", "api.tinybird.co", "//api.tinybird.co", "https://", "https:///x", "https:api.tinybird.co", "ftp://api.tinybird.co", "unix//run/x",
		"https://user@api.tinybird.co", "https://user:pa55word@api.tinybird.co", "https://:@api.tinybird.co",
		"https://api.tinybird.co?", "https://api.tinybird.co?token=pa55word", "https://api.tinybird.co#", "https://api.tinybird.co/#x",
		"https://api.tinybird.co:", "https://api.tinybird.co:0", "https://api.tinybird.co:65536", "https://api.tinybird.co:x",
		"https://api.tinybird.co/..", "https://api.tinybird.co/a//b", "https://api.tinybird.co//", "https://api.tinybird.co/a%2fb",
		"https://api.tinybird.co/a;b", "https://api.tinybird.co/v0/pipes/x.json", "https://{env.HOST}", "https://api tinybird.co",
		"https://api..tinybird.co", "https://.tinybird.co", "https://-a.co", "https://tïnybird.co", "https://api%2etinybird.co",
		"https://[fe80::1%25eth0]", "https://" + rep("a", 64) + ".co", " https://api.tinybird.co", "https://api.tinybird.co\n",
		// Attacks: addresses and names that only look private. The minted token would go out in clear.
		"http://api.tinybird.co", "http://8.8.8.8", "http://[2001:db8::1]", "http://[::ffff:8.8.8.8]", "http://0.0.0.0", "http://172.32.0.1",
		"http://169.254.169.254",
		"http://134744072", "http://0x8080808", "http://010.8.8.8", "http://10.1", // other spellings of addresses
		"http://localhost.evil.example", "http://evillocalhost.example", "http://internal.example", "http://local.example",
		"http://ai.", "http://localhost.", "http://x.internal.", // a dot at the end makes a name of the public root
	} {
		u, err := ParseUpstream(raw)
		if err == nil {
			t.Errorf("ParseUpstream(%q) = %s", raw, u)
			continue
		}
		if strings.Contains(err.Error(), "pa55word") || !strings.Contains(err.Error(), "upstream") {
			t.Errorf("ParseUpstream(%q): error %v", raw, err)
		}
	}
}

func FuzzUpstream(f *testing.F) {
	for _, seed := range []string{"https://api.tinybird.co", "http://localhost:7181/x", "http://[::1]", "https://u:p@h", "http://10.0.0.1", "http://8.8.8.8"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := ParseUpstream(raw)
		if err != nil {
			return
		}
		again, err := url.Parse(u.String())
		if err != nil || *again != *u {
			t.Fatalf("%q is %+v, and parsed again %+v, %v", raw, u, again, err)
		}
		if fixed, err := ParseUpstream(u.String()); err != nil || *fixed != *u {
			t.Fatalf("%q is no fixed point: %v", u, err)
		}
		if u.Scheme != "https" && (u.Scheme != "http" || !private(u.Hostname())) {
			t.Fatalf("%q passes as %s", raw, u)
		}
	})
}
