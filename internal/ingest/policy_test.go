package ingest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

func TestPolicyErrors(t *testing.T) {
	t.Parallel()
	good := []Stamp{{Name: "tenant_id", Value: "{clerk.org.id}"}}
	for name, tt := range map[string]struct {
		sources []SourceConfig
		text    string
	}{
		"no name":        {[]SourceConfig{{Stamps: good}}, "no name"},
		"bad name":       {[]SourceConfig{{Names: []string{"a-b"}, Stamps: good}}, "letters, digits"},
		"no stamp":       {[]SourceConfig{{Names: []string{"a"}}}, "stamp organization_id"},
		"stamp's name":   {[]SourceConfig{{Names: []string{"a"}, Stamps: []Stamp{{Name: "a.b", Value: "x"}}}}, "letters, digits"},
		"stamp twice":    {[]SourceConfig{{Names: []string{"a"}, Stamps: []Stamp{{Name: "a", Value: "x"}, {Name: "A", Value: "x"}}}}, "given twice"},
		"stamp's type":   {[]SourceConfig{{Names: []string{"a"}, Stamps: []Stamp{{Name: "a", Value: "x", Type: "int"}}}}, "number"},
		"stamp's value":  {[]SourceConfig{{Names: []string{"a"}, Stamps: []Stamp{{Name: "a", Value: "x", Type: "number"}}}}, "not a number"},
		"stamp is empty": {[]SourceConfig{{Names: []string{"a"}, Stamps: []Stamp{{Name: "a"}}}}, "empty"},
		"client's value": {[]SourceConfig{{Names: []string{"a"}, Stamps: []Stamp{{Name: "a", Value: "{query.a}"}}}}, "query.a"},
		"listed twice":   {[]SourceConfig{{Names: []string{"a"}, Stamps: good}, {Names: []string{"b", "a"}, Stamps: good}}, "listed twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewPolicy(Config{Sources: tt.sources, CheckPlaceholder: func(name string) error {
				if strings.HasPrefix(name, "clerk.") {
					return nil
				}
				return errors.New("a client could choose it")
			}})
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A stamp is never left out, empty or null: an identity without a value for it sends no rows.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	p, err := NewPolicy(Config{CheckPlaceholder: anyPlaceholder, Sources: []SourceConfig{{Names: []string{"events"}, Token: "t", Stamps: []Stamp{
		{Name: "org", Value: "{org}"}, {Name: "n", Value: "{n}", Type: "number"}, {Name: "b", Value: "{b}", Type: "boolean"},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	whole := identity{"org": `a"b\c`, "n": json.Number("12345678901234567890"), "b": false}
	g, err := p.Authorize("events", whole)
	if err != nil || string(g.stamps) != `"org":"a\"b\\c","n":12345678901234567890,"b":false` || g.Token != "t" {
		t.Fatalf("%+v, %v", g, err)
	}
	for _, name := range []string{"", "other", "Events", "events ", "events\x00"} {
		if _, err := p.Authorize(name, whole); status(err) != 404 {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, v := range map[string]any{"null": nil, "empty": "", "blank": " ", "object": map[string]any{}, "empty list": []any{}, "control": "a\nb", "broken": "\xff"} {
		who := identity{"org": v, "n": whole["n"], "b": true}
		_, err := p.Authorize("events", who)
		if refusal, _ := errors.AsType[*apierr.Error](err); status(err) != 403 || refusal.Code != apierr.TenantMissing {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.Authorize("events", identity{}); status(err) != 403 {
		t.Errorf("nobody: %v", err)
	}
	if _, err := p.Authorize("events", identity{"org": "a", "n": "1;2", "b": true}); status(err) != 403 {
		t.Errorf("no number: %v", err)
	}
}

func status(err error) int {
	refusal, ok := errors.AsType[*apierr.Error](err)
	if !ok {
		return 0
	}
	return refusal.Status
}

func TestTarget(t *testing.T) {
	t.Parallel()
	stamp := []Stamp{{Name: "o", Value: "x"}}
	one, err := NewPolicy(Config{Sources: []SourceConfig{{Names: []string{"only"}, Stamps: stamp}}})
	if err != nil {
		t.Fatal(err)
	}
	two, err := NewPolicy(Config{Sources: []SourceConfig{{Names: []string{"a", "b"}, Stamps: stamp}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		policy      *Policy
		path, query string
		status      int // 0: read
		want        Target
	}{
		{one, eventsPath, "name=x", 0, Target{Datasource: "x"}},
		{one, eventsPath, "name=x&wait=true&format=json", 0, Target{Datasource: "x", Wait: true}},
		{one, eventsPath, "wait=false&name=x&format=ndjson", 0, Target{Datasource: "x"}},
		{one, eventsPath, "wait=True&n%61me=x", 0, Target{Datasource: "x", Wait: true}},
		{one, eventsPath, "name=x&token=p.secret&TOKEN=b&__session=c&from=ts-sdk", 0, Target{Datasource: "x", Dropped: 4}},
		{one, eventsPath, "name=x&Name=y&name[]=z&name%20=w", 0, Target{Datasource: "x", Dropped: 3}},
		{one, eventsPath, "name=x&name=x", 400, Target{}},
		{one, eventsPath, "name=x&n%61me=y", 400, Target{}},
		{one, eventsPath, "name=x&wait=true&wait=false", 400, Target{}},
		{one, eventsPath, "name=x&wait=maybe", 400, Target{}},
		{one, eventsPath, "name=x&format=csv", 400, Target{}},
		{one, eventsPath, "name=x;wait=true", 400, Target{}},
		{one, eventsPath, "name=%zz", 400, Target{}},
		{one, eventsPath, "", 400, Target{}},
		{one, eventsPath, "Name=x", 400, Target{}},
		{one, eventsPath, "name=x&a=" + strings.Repeat("a", 9000), 414, Target{}},
		{one, trackerPath, "", 0, Target{Datasource: "only"}},
		{one, trackerPath, "token=x", 0, Target{Datasource: "only", Dropped: 1}},
		{two, trackerPath, "", 0, Target{Datasource: trackerSource}},
		{two, trackerPath, "name=b", 0, Target{Datasource: "b"}},
	} {
		got, err := tt.policy.Target(tt.path, tt.query, 0)
		if status(err) != tt.status || got != tt.want {
			t.Errorf("%.60s: %+v, %v", tt.query, got, err)
		}
	}
	for path, want := range map[string]bool{eventsPath: true, trackerPath: true, "/v0/events/": false, "/v0/Events": false, "/v0/%65vents": false, "/v0/pipes/a.json": false} {
		if one.Serves(path) != want {
			t.Error(path)
		}
	}
}
