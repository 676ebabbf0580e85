package storm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Outcome is how the requests of one kind ended.
type Outcome struct {
	Right       int // answered, or refused, as they had to be
	Explained   int // otherwise, and a fault says why
	Wrong       int
	Lost        int // accepted and not answered; they are among the wrong
	NotAccepted int // sent on a connection that a reload had closed before anybody had read it
}

// Sample is the process at one moment.
type Sample struct {
	Goroutines, Heap, RSS, Series int
}

// Flat compares the medians of a figure in two thirds of the time.
type Flat struct {
	What         string
	Second, Last int
}

// Report is what came out of a storm.
type Report struct {
	Elapsed  time.Duration
	Kinds    map[string]*Outcome
	Reasons  map[string]int // what explained how many answers
	Wrong    []string       // the first fifty
	Wrongs   int
	Reloads  int
	Rejected int
	Fetches  int // of Clerk's keys
	Samples  []Sample
	Flat     []Flat

	GoroutinesBefore, GoroutinesAfter int

	mu        sync.Mutex
	Disturbed map[string]int // how often each thing went wrong
}

func (r *Report) disturbed(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Disturbed == nil {
		r.Disturbed = make(map[string]int)
	}
	r.Disturbed[name]++
}

func (r *Report) take(l *ledger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Kinds, r.Reasons, r.Wrong, r.Wrongs = l.kinds, l.reasons, l.faults, l.bad
}

// Total sums all kinds up.
func (r *Report) Total() Outcome {
	var all Outcome
	for _, o := range r.Kinds {
		all.Right += o.Right
		all.Explained += o.Explained
		all.Wrong += o.Wrong
		all.Lost += o.Lost
		all.NotAccepted += o.NotAccepted
	}
	return all
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

func (r *Report) String() string {
	var out strings.Builder
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	row := func(name string, o Outcome) {
		_, _ = fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, o.Right, o.Explained, o.NotAccepted, o.Wrong, o.Lost)
	}
	_, _ = fmt.Fprintf(tw, "\tas it has to be\texplained by a fault\tnot accepted\twrong\tof them lost\t\n")
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		row(kind, *r.Kinds[kind])
	}
	row("all", r.Total())
	_ = tw.Flush() // a strings.Builder takes everything
	fmt.Fprintf(&out, "\n%s, %d reloads and %d rejected configs, %d fetches of Clerk's keys\n", r.Elapsed.Round(time.Second), r.Reloads, r.Rejected, r.Fetches)
	counts := func(title string, of map[string]int) {
		out.WriteString(title + ":\n")
		for _, name := range slices.Sorted(maps.Keys(of)) {
			fmt.Fprintf(&out, "  %6d  %s\n", of[name], name)
		}
	}
	counts("what went wrong around the edge", r.Disturbed)
	counts("what that explains", r.Reasons)
	for _, f := range r.Flat {
		fmt.Fprintf(&out, "%s: %d in the second third, %d in the last (medians)\n", f.What, f.Second, f.Last)
	}
	fmt.Fprintf(&out, "goroutines: %d in the beginning, %d in the end\n", r.GoroutinesBefore, r.GoroutinesAfter)
	for _, wrong := range r.Wrong {
		out.WriteString("WRONG " + wrong + "\n")
	}
	return out.String()
}
