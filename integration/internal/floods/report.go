package floods

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// measurement is one phase.
type measurement struct {
	good, flood sent
	elapsed     time.Duration
	cpu         time.Duration // of the edge
	cost        float64       // µs of CPU for a request of the flood when it comes as fast as it is answered
	rss         int
}

// cpu is what a request of the flood costs.
func cpu(m, quiet measurement) float64 {
	if m.cost > 0 {
		return m.cost
	}
	return perRequest(m, quiet)
}

// perRequest is the CPU time that a request of the flood took: what the phase took over a phase of good traffic alone.
func perRequest(m, quiet measurement) float64 {
	if m.flood.requests == 0 {
		return 0
	}
	per := quiet.cpu.Seconds() / max(quiet.elapsed.Seconds(), 1e-9)
	return (m.cpu.Seconds() - per*m.elapsed.Seconds()) * 1e6 / float64(m.flood.requests)
}

// Tenants is the flood of tenants.
type Tenants struct {
	Count                 int // that were served
	CPU                   float64
	P99Alone, P99         time.Duration
	HeapBefore, HeapAfter int
	RSS                   int
}

// Report is what came out.
type Report struct {
	Elapsed               time.Duration
	Fetches               int // of Clerk's keys, over all rounds
	HeapBefore, HeapAfter int // what the garbage collector leaves, before the first round and after the last
	Tenants               *Tenants

	order []flood
	rows  map[string][]measurement
}

func (r *Report) add(name string, m measurement) {
	if r.rows == nil {
		r.rows = make(map[string][]measurement)
	}
	r.rows[name] = append(r.rows[name], m)
}

// Answered is how many requests of all kinds were answered.
func (r *Report) Answered() int {
	n := 0
	for _, rows := range r.rows {
		for _, m := range rows {
			n += m.good.requests + len(m.flood.took)
		}
	}
	return n
}

// FetchesAllowed is how many fetches of Clerk's keys there may have been: one every ten seconds that requests ask for, and one more.
func (r *Report) FetchesAllowed() int { return 2 + int(r.Elapsed.Seconds()/10) }

// over is the median over the rounds of what a round tells of a flood and of good traffic alone.
func (r *Report) over(name string, figure func(m, quiet measurement) float64) float64 {
	values := make([]float64, 0, len(r.rows[name]))
	for round, m := range r.rows[name] {
		values = append(values, figure(m, r.rows[alone][round]))
	}
	return rig.Median(values)
}

// p99 of good traffic beside a flood in ms, over all rounds: one of them has too few requests for it.
func (r *Report) p99(name string) float64 {
	var took []time.Duration
	for _, m := range r.rows[name] {
		took = append(took, m.good.took...)
	}
	slices.Sort(took)
	return rig.Quantile(took, 0.99).Seconds() * 1e3
}

func mib(n int) float64 { return float64(n) / (1 << 20) }

// ratio is what a request of a flood costs beside another one of the same round, both as fast as they are answered; or if the flood cannot come
// so fast, both at its rate.
func (r *Report) ratio(name, beside string) float64 {
	values := make([]float64, 0, len(r.rows[name]))
	for round, m := range r.rows[name] {
		quiet, other := r.rows[alone][round], r.rows[beside][round]
		if m.cost == 0 {
			other.cost = 0
		}
		values = append(values, cpu(m, quiet)/max(cpu(other, quiet), 1e-9))
	}
	return rig.Median(values)
}

// lateness is good traffic's p99 beside what it is alone, and beside what it is when as many more requests are accepted.
func (r *Report) lateness(name string) (toAlone, toAccepted float64) {
	late := r.p99(name)
	return late / max(r.p99(alone), 1e-9), late / max(r.p99(accepted), 1e-9)
}

func (r *Report) String() string {
	var out strings.Builder
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "\tCPU µs/request\tto accepted\tto one as long\tgood p99 ms\tto alone\tto accepted\tresident MiB\t")
	for _, f := range r.order {
		cost, late := r.over(f.name, cpu), r.p99(f.name)
		toAlone, toAccepted := r.lateness(f.name)
		rss := r.over(f.name, func(m, _ measurement) float64 { return mib(m.rss) })
		if f.name == alone {
			_, _ = fmt.Fprintf(tw, "%s\t\t\t\t%.1f\t1\t%.2f\t%.0f\t\n", f.name, late, toAccepted, rss)
			continue
		}
		_, _ = fmt.Fprintf(tw, "%s\t%.0f\t%.2f\t%.2f\t%.1f\t%.2f\t%.2f\t%.0f\t\n", f.name, cost, r.ratio(f.name, accepted), r.ratio(f.name, f.like), late, toAlone, toAccepted, rss)
	}
	_ = tw.Flush() // a strings.Builder takes everything
	fmt.Fprintf(&out, "fetches of Clerk's keys: %d in %s, at most %d\n", r.Fetches, r.Elapsed.Round(time.Second), r.FetchesAllowed())
	fmt.Fprintf(&out, "heap: %.1f MiB before, %.1f MiB after\n", mib(r.HeapBefore), mib(r.HeapAfter))
	if t := r.Tenants; t != nil {
		fmt.Fprintf(&out, "%d tenants, each with a new session: %.0f µs a request; good p99 %s, %s alone; heap %.1f MiB before, %.1f MiB after, resident %.0f MiB\n",
			t.Count, t.CPU, t.P99.Round(100*time.Microsecond), t.P99Alone.Round(100*time.Microsecond), mib(t.HeapBefore), mib(t.HeapAfter), mib(t.RSS))
	}
	return out.String()
}

// Bounds says which of the two bounds on times did not hold: a refused request costs less than an accepted one that is as long, and good traffic's p99
// does not double, unless as many accepted requests would have it as late.
func (r *Report) Bounds() []string {
	var broken []string
	for _, f := range r.order[3:] {
		if ratio := r.ratio(f.name, f.like); ratio >= 1 {
			broken = append(broken, fmt.Sprintf("%s: %.2f of an accepted request that is as long", f.name, ratio))
		}
		if toAlone, toAccepted := r.lateness(f.name); toAlone >= 2 && toAccepted >= 1 {
			broken = append(broken, fmt.Sprintf("%s: good traffic's p99 is %.2f of what it is alone", f.name, toAlone))
		}
	}
	return broken
}
