package storm

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// calm waits until everybody is served, with sessions of the latest key: what went wrong leaves nothing behind.
func (st *storm) calm(ctx context.Context) error {
	c, err := st.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { c.Close() }()
	deadline := time.Now().Add(rig.Patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n < min(20, len(st.sessions)); {
		s := st.sessions[n*len(st.sessions)/20%len(st.sessions)]
		s.forget()
		token, err := st.token(s)
		if err != nil {
			return err
		}
		got, keep, err := c.Do(raw(http.MethodGet, "/v0/pipes/rows.json?attempt=att_0", http.Header{"Authorization": {"Bearer " + token}}, ""))
		if !keep {
			c.Close()
			if c, err = st.dial(ctx); err != nil {
				return err
			}
		}
		if err == nil && got.Status == http.StatusOK && owned(s, got) == nil {
			n++
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not served although nothing is wrong: %d %s %w", s.org, got.Status, got.Body, err)
		}
		<-tick.C
	}
	return nil
}

// settle looks at what only the end can tell.
func (st *storm) settle(ctx context.Context, before int) error {
	for _, path := range []string{"/config/", "/metrics", "/debug/vars", "/debug/pprof/cmdline", "/reverse_proxy/upstreams", "/tinybird/status"} {
		_, text, err := st.edge.Ask(ctx, http.MethodGet, path, "", "")
		if err != nil {
			return err
		}
		st.Saw("admin "+path, text)
	}
	st.report.Fetches = st.stack.Issuer.Fetches()
	most := 5 + 2*int(st.report.Elapsed.Seconds()+rig.Patience.Seconds())/10
	if st.report.Fetches > most {
		st.ledger.wrong("fetches of keys", 0, fmt.Sprintf("%d, at most %d were expected", st.report.Fetches, most))
	}
	if err := st.idle(ctx, before); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rig.Patience)
	defer cancel()
	if err := st.edge.Terminate(ctx); err != nil {
		st.ledger.wrong("the end of the process", 0, err.Error())
	}
	st.ledger.close(st.watch)
	st.report.take(st.ledger)
	return nil
}

// idle waits until the goroutines are about as many as in the beginning.
func (st *storm) idle(ctx context.Context, before int) error {
	const slack = 30 // connections that are kept, to Redis and Tinybird
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(rig.Patience)
	for {
		n, err := st.edge.Goroutines(ctx)
		if err != nil {
			return err
		}
		st.report.GoroutinesBefore, st.report.GoroutinesAfter = before, n
		if n <= before+slack {
			return nil
		}
		if time.Now().After(deadline) {
			st.ledger.wrong("goroutines", 0, fmt.Sprintf("%d in the beginning, %d in the end", before, n))
			return nil
		}
		<-tick.C
	}
}
