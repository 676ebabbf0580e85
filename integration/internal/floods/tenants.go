package floods

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// tenants floods the edge with sessions that it has never seen, each of a tenant of its own. They are good, and so are served.
func (f *run) tenants(ctx context.Context) error {
	f.Say(fmt.Sprintf("signing %d tenants in", f.Tenants))
	requests, err := f.signAll()
	if err != nil {
		return err
	}
	const longest = 10 * time.Minute
	before, err := f.edge.Heap(ctx)
	if err != nil {
		return err
	}
	quiet, err := f.phase(ctx, flood{name: alone}, max(f.Phase, 2*time.Second))
	if err != nil {
		return err
	}
	f.Say("sending a request of each")
	over, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	var served atomic.Int64
	one := flood{name: "tenants", traffic: traffic{
		next: func(n int) []byte { return requests[n%len(requests)] },
		check: func(n int, got rig.Answer) {
			f.accepted(goodSessions+n%len(requests), got)
			if served.Add(1) == int64(len(requests)) {
				cancel()
			}
		},
	}}
	m, err := f.phase(over, one, longest)
	if err != nil {
		return err
	}
	after, err := f.edge.Heap(ctx)
	if err != nil {
		return err
	}
	f.report.Tenants = &Tenants{
		Count: int(served.Load()), CPU: perRequest(m, quiet), P99Alone: rig.Quantile(quiet.good.took, 0.99), P99: rig.Quantile(m.good.took, 0.99),
		HeapBefore: before, HeapAfter: after, RSS: m.rss,
	}
	return nil
}

// signAll makes a request for each tenant.
func (f *run) signAll() ([][]byte, error) {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		fails error
	)
	requests := make([][]byte, f.Tenants)
	for worker := range runtime.NumCPU() {
		wait.Go(func() {
			for n := worker; n < f.Tenants; n += runtime.NumCPU() {
				token, err := f.session(goodSessions + n)
				if err != nil {
					mu.Lock()
					fails = errors.Join(fails, err)
					mu.Unlock()
					return
				}
				requests[n] = request(token)
			}
		})
	}
	wait.Wait()
	return requests, fails
}
