package storm

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// sample takes the figures that have to be flat.
func (st *storm) sample(ctx, over context.Context) error {
	for wait(over, max(time.Second, st.Duration/60)) {
		goroutines, err := st.edge.Goroutines(ctx)
		if err != nil {
			return err
		}
		heap, err := st.edge.Heap(ctx)
		if err != nil {
			return err
		}
		_, metrics, err := st.edge.Ask(ctx, http.MethodGet, "/metrics", "", "")
		if err != nil {
			return err
		}
		rss, _ := st.edge.RSS() // Linux only; shown, and nothing depends on it
		st.report.Samples = append(st.report.Samples, Sample{Goroutines: goroutines, Heap: heap, RSS: int(rss), Series: strings.Count(metrics, "\n")})
		st.Say(fmt.Sprintf("%d requests, %d wrong; heap %.1f MiB, resident %.0f MiB, %d goroutines",
			st.ledger.count(), st.ledger.wrongs(), mib(heap), mib(int(rss)), goroutines))
	}
	st.flat("goroutines", 64, func(s Sample) int { return s.Goroutines })
	st.flat("heap", 16<<20, func(s Sample) int { return s.Heap })
	st.flat("lines of metrics", 20, func(s Sample) int { return s.Series })
	return nil
}

// flat compares the last third with the second.
func (st *storm) flat(what string, slack int, figure func(Sample) int) {
	all := st.report.Samples
	if len(all) < 6 {
		return
	}
	second, last := middle(all[len(all)/3:len(all)*2/3], figure), middle(all[len(all)*2/3:], figure)
	st.report.Flat = append(st.report.Flat, Flat{What: what, Second: second, Last: last})
	if last > second+second/5+slack {
		st.ledger.wrong(what, 0, fmt.Sprintf("%d in the second third, %d in the last", second, last))
	}
}

func middle(samples []Sample, figure func(Sample) int) int {
	values := make([]int, 0, len(samples))
	for _, s := range samples {
		values = append(values, figure(s))
	}
	return rig.Median(values)
}
