package storm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// disturb lets one thing after the other go wrong, each for a while, in an order that the seed says.
func (st *storm) disturb(ctx, over context.Context) error {
	rng := rand.New(rand.NewPCG(st.Seed, 1<<32)) //nolint:gosec // see client
	all := st.disturbances()
	slot := max(st.Duration/200, min(3*time.Second, st.Duration/time.Duration(len(all)+2)))
	for {
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, d := range all {
			if !wait(over, slot/3) {
				return nil
			}
			if err := d.begin(ctx); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			wait(over, slot*2/3)
			if err := d.end(ctx); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			st.report.disturbed(d.name)
		}
	}
}

// reload loads a config again and again, and now and then one that is rejected.
func (st *storm) reload(ctx, over context.Context) error {
	every := min(2*time.Second, st.Duration/10)
	for n := 1; wait(over, every); n++ {
		if n%3 == 0 {
			bad := st.rejected()
			status, answer, err := st.edge.Load(ctx, bad[n/3%len(bad)])
			if err != nil {
				return err
			}
			st.Saw("a rejected config's error", answer)
			if status == http.StatusOK {
				st.ledger.wrong("reload", 0, "a config that should be rejected was accepted")
			}
			st.report.Rejected++
		}
		status, answer, err := st.edge.Load(ctx, st.generation(n))
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			st.ledger.wrong("reload", 0, answer)
		}
		st.report.Reloads++
	}
	return nil
}

// wait waits for a while and says whether there is any left.
func wait(over context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-over.Done():
		return false
	case <-timer.C:
		return true
	}
}
