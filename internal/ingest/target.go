package ingest

import (
	"net/http"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/tinybird"
)

const (
	eventsPath = "/v0/events"
	// trackerPath is where Tinybird's tracker, flock.js, sends what it has when it is told of a proxy (data-proxy).
	trackerPath = "/api/tracking"
	// trackerSource is the tracker's data source, unless it is told another.
	trackerSource = "analytics_events"
)

// Serves tells whether rows are taken at the path, given as it was sent (url.URL.EscapedPath).
func (p *Policy) Serves(path string) bool { return path == eventsPath || path == trackerPath }

// Target is what the URL of a request asks for.
type Target struct {
	Datasource string // as the client named it; "" if there is none that it could mean
	Wait       bool   // answer when Tinybird has stored the rows
	Dropped    int    // parameters that mean nothing here, credentials among them
}

// Target reads the URL of a request for a path that is served. The error is always an *apierr.Error: 400, 414.
func (p *Policy) Target(path, rawQuery string, maxURL int) (Target, error) {
	if maxURL <= 0 {
		maxURL = tinybird.DefaultMaxURL
	}
	if len(path)+1+len(rawQuery) > maxURL {
		return Target{}, apierr.New(http.StatusRequestURITooLong, apierr.URLTooLong, "The URL is too long. Rows are sent in the body.")
	}
	var t Target
	given := make(map[string]string, 3)
	doubled := ""
	err := tinybird.ParseQuery(rawQuery, func(name, value string) {
		switch name {
		case "name", "wait", "format":
			if _, ok := given[name]; ok {
				doubled = name
			}
			given[name] = value
		default:
			t.Dropped++
		}
	})
	if err != nil {
		return Target{}, badQuery("The URL's query is malformed. Separate parameters by &, and percent-encode their names and values as UTF-8.").Wrap(err)
	}
	if doubled != "" {
		return Target{}, badQuery("The URL's query gives the parameter " + doubled + " twice. Keep one of them.")
	}
	switch wait := strings.ToLower(given["wait"]); wait {
	case "true":
		t.Wait = true
	case "false", "":
	default:
		return Target{}, badQuery("The parameter wait is true or false.")
	}
	switch given["format"] {
	case "", "json", "ndjson":
	default:
		return Target{}, badQuery("The parameter format is json or ndjson, or left out.")
	}
	name, named := given["name"]
	switch {
	case named:
		t.Datasource = name
	case path == trackerPath:
		t.Datasource = p.tracked()
	default:
		return Target{}, badQuery("Say for which data source the rows are, with the parameter name in the URL.")
	}
	return t, nil
}

// tracked is the data source for what the tracker sends, which names none.
func (p *Policy) tracked() string {
	if len(p.sources) == 1 {
		for name := range p.sources {
			return name
		}
	}
	return trackerSource
}

func badQuery(message string) *apierr.Error {
	return apierr.New(http.StatusBadRequest, apierr.BadQuery, message)
}
