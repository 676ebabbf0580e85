package storm

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// weather is what is wrong around the edge, now and before.
type weather struct {
	mu sync.Mutex

	tinybird     *devstack.Fault
	tinybirdName string
	tinybirdOver time.Time // when the latest one ended

	issuer     *devstack.Fault
	issuerOver time.Time

	generation int       // of the issuer's keys
	rotated    time.Time // when they came
	fetched    time.Time // when the edge was given them; before rotated: not yet
}

func newWeather() *weather { return &weather{fetched: time.Now()} }

// atIssuer is asked about each fetch of the keys.
func (w *weather) atIssuer(*http.Request) *devstack.Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	// A fetch that came in the moment of a rotation may have been answered with the keys before it.
	if w.issuer == nil && time.Since(w.rotated) > time.Second {
		w.fetched = time.Now()
	}
	return w.issuer
}

// tinybirdFault is what goes wrong with a request that goes up; half of them are spared.
func (w *weather) tinybirdFault(id int64) (fault *devstack.Fault, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tinybird == nil || id%2 == 1 {
		return nil, ""
	}
	return w.tinybird, w.tinybirdName
}

// tinybirdSince says whether anything was wrong with Tinybird since then.
func (w *weather) tinybirdSince(began time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tinybird != nil || w.tinybirdOver.After(began)
}

// keysKnown says whether the edge has to know the key of that generation: it is not outdated, and the edge was given it, or has had the time
// to fetch it. It may ask every ten seconds, and be made to wait ten by an issuer that hangs.
func (w *weather) keysKnown(generation int, began time.Time) bool {
	const least, fetching = 25 * time.Second, 2 * time.Second
	w.mu.Lock()
	defer w.mu.Unlock()
	if generation < w.generation {
		return false
	}
	if w.fetched.After(w.rotated) {
		return w.fetched.Add(fetching).Before(began)
	}
	return w.issuer == nil && w.rotated.Add(least).Before(began) && w.issuerOver.Add(least).Before(began)
}

func (w *weather) keys() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.generation
}

func (w *weather) setTinybird(name string, f *devstack.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tinybird, w.tinybirdName = f, name
	w.tinybirdOver = time.Now()
}

func (w *weather) setIssuer(f *devstack.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.issuer = f
	w.issuerOver = time.Now()
}

// disturbance is one thing that goes wrong for a while.
type disturbance struct {
	name       string
	begin, end func(context.Context) error
}

// disturbances are all things that go wrong.
func (st *storm) disturbances() []disturbance {
	w := st.weather
	tinybird := func(name string, f devstack.Fault) disturbance {
		return disturbance{
			name:  "Tinybird " + name,
			begin: func(context.Context) error { w.setTinybird(name, &f); return nil },
			end:   func(context.Context) error { w.setTinybird("", nil); return nil },
		}
	}
	issuer := func(name string, f devstack.Fault) disturbance {
		return disturbance{
			name:  "issuer " + name,
			begin: func(context.Context) error { w.setIssuer(&f); return nil },
			end:   func(context.Context) error { w.setIssuer(nil); return nil },
		}
	}
	rotation := func(name string, keepKid bool) disturbance {
		return disturbance{
			name:  name,
			begin: func(context.Context) error { return st.rotate(keepKid) },
			end:   func(context.Context) error { return nil },
		}
	}
	return []disturbance{
		tinybird("answers 500", devstack.Fault{Status: http.StatusInternalServerError}),
		tinybird("answers 503", devstack.Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}}),
		tinybird("refuses the token", devstack.Fault{Status: http.StatusForbidden}),
		tinybird("refuses the query", devstack.Fault{Status: http.StatusBadRequest}),
		tinybird("hangs", devstack.Fault{Stop: devstack.HangBeforeHeader}),
		tinybird("hangs half-way", devstack.Fault{Stop: devstack.HangInBody}),
		tinybird("breaks off", devstack.Fault{Stop: devstack.DropInBody, Chunked: true}),
		tinybird("drops", devstack.Fault{Stop: devstack.DropBeforeHeader}),
		issuer("answers 500", devstack.Fault{Status: http.StatusInternalServerError}),
		issuer("hangs", devstack.Fault{Stop: devstack.HangBeforeHeader}),
		issuer("answers nonsense", devstack.Fault{Body: []byte(`{"keys":[{"kty":"RSA"`)}),
		issuer("has no keys", devstack.Fault{Body: []byte(`{"keys":[]}`)}),
		{
			name: "new key while the issuer answers 503",
			begin: func(context.Context) error {
				w.setIssuer(&devstack.Fault{Status: http.StatusServiceUnavailable})
				return st.rotate(false)
			},
			end: func(context.Context) error { w.setIssuer(nil); return nil },
		},
		rotation("new key", false),
		rotation("new key of the same name", true),
		{
			name:  "Redis is gone",
			begin: func(context.Context) error { st.redis.Close(); return nil },
			end:   func(context.Context) error { return st.redis.Restart() },
		},
		{
			name: "Redis refuses",
			begin: func(context.Context) error {
				st.redis.SetError("LOADING Redis is loading the dataset in memory")
				return nil
			},
			end: func(context.Context) error { st.redis.SetError(""); return nil },
		},
		{name: "the config as it is", begin: st.lookAround, end: func(context.Context) error { return nil }},
	}
}

// rotate has the issuer sign with another key.
func (st *storm) rotate(keepKid bool) error {
	if err := st.stack.Issuer.Rotate(keepKid); err != nil {
		return err
	}
	st.weather.mu.Lock()
	defer st.weather.mu.Unlock()
	st.weather.generation++
	st.weather.rotated = time.Now()
	return nil
}

// lookAround asks the admin endpoint for all it tells while things go wrong.
func (st *storm) lookAround(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rig.Patience)
	defer cancel()
	for _, path := range []string{"/config/", "/tinybird/status", "/metrics"} {
		_, text, err := st.edge.Ask(ctx, http.MethodGet, path, "", "")
		if err != nil {
			return err
		}
		st.Saw("admin "+path, text)
	}
	return nil
}
