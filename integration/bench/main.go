// Command bench measures the edge against Caddy's own reverse_proxy, side by side on this machine: the built binary, real
// sockets on loopback, an upstream that answers two kilobytes from memory. Contenders take turns within a round, ratios are
// taken within a round, and the median of the rounds is what counts, because a shared machine changes from one second to
// the next. See docs/benchmarks.md for how to read what it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// options are the command line's.
type options struct {
	rounds      int
	duration    time.Duration
	connections int
	sessions    []int
	protocols   []string
	cold        int // requests of a cold run
	binary      string
	profile     string // where to put CPU profiles of the edge; "" for none
}

func main() { os.Exit(rig.Main("bench", run)) }

func parseOptions(args []string) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", 5, "how many times the contenders take turns")
	flags.DurationVar(&o.duration, "duration", 3*time.Second, "how long each of them is measured in a round")
	flags.IntVar(&o.connections, "connections", 64, "connections of the load, each with one request at a time")
	flags.IntVar(&o.cold, "cold", 12_000, "requests of a cold run, each of a new session; 0 leaves cold runs out")
	flags.StringVar(&o.binary, "binary", "", "a Caddy with this plugin; default: build it")
	flags.StringVar(&o.profile, "profile", "", "write a CPU profile of the warm edge to this file")
	sessions := flags.String("sessions", "1,100,10000", "numbers of distinct sessions, separated by commas")
	protocols := flags.String("protocols", "http/1.1,h2", "http/1.1 (plain on both sides) and h2 (TLS and HTTP/2 on both sides)")
	if err := flags.Parse(args); err != nil {
		return o, fmt.Errorf("command line: %w", err)
	}
	for field := range strings.SplitSeq(*sessions, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 {
			return o, fmt.Errorf("-sessions %q: want whole numbers of at least 1", *sessions)
		}
		o.sessions = append(o.sessions, n)
	}
	for field := range strings.SplitSeq(*protocols, ",") {
		o.protocols = append(o.protocols, strings.TrimSpace(field))
	}
	if o.rounds < 1 || o.duration <= 0 || o.connections < 1 {
		return o, errors.New("rounds, duration and connections must be positive")
	}
	return o, nil
}

func run(ctx context.Context, w io.Writer, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := say(w, fmt.Sprintf("%d rounds of %s, %d connections, %s\n", o.rounds, o.duration, o.connections, rig.Machine())); err != nil {
		return err
	}
	for _, protocol := range o.protocols {
		for _, n := range o.sessions {
			t, err := b.compare(ctx, protocol, n)
			if err != nil {
				return fmt.Errorf("%s, %d sessions: %w", protocol, n, err)
			}
			if err := say(w, t.String()); err != nil {
				return err
			}
		}
		if o.cold > 0 {
			t, err := b.compareCold(ctx, protocol)
			if err != nil {
				return fmt.Errorf("%s, cold: %w", protocol, err)
			}
			if err := say(w, t.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

func say(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

// compare measures the upstream alone, the bare proxy and the warm edge with n sessions.
func (b *bench) compare(ctx context.Context, protocol string, n int) (*table, error) {
	s, err := b.start(ctx, protocol)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	requests := b.requests(n)
	contenders := []contender{
		{name: "direct", addr: s.upstream},
		{name: "bare", addr: s.bare.Addr, process: s.bare},
		{name: "edge", addr: s.edge.Addr, process: s.edge},
	}
	names := []string{"direct", "bare", "edge"}
	if s.edge1 != nil {
		contenders = append(contenders, contender{name: edgeUp1, addr: s.edge1.Addr, process: s.edge1})
		names = append(names, edgeUp1)
	}
	t := newTable(fmt.Sprintf("%s, %d sessions", protocol, n), "bare", names...)
	for _, c := range contenders {
		if err := b.warm(ctx, s, c, requests); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for round := range b.rounds {
		order := slices.Concat(contenders[round%len(contenders):], contenders[:round%len(contenders)])
		for _, c := range order {
			m, err := b.measure(ctx, s, c, requests)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			t.add(round, c.name, m)
		}
	}
	return t, b.profileEdge(ctx, s, requests)
}

// compareCold measures the edge with sessions that it has never seen, each with one request, beside the warm one and the
// bare proxy. What it has seen is forgotten by starting it anew. As many other sessions come before, unmeasured, so that its caches and
// its memory have the size that they have on an edge that runs for days.
func (b *bench) compareCold(ctx context.Context, protocol string) (*table, error) {
	t := newTable(protocol+", every request a new session", "bare", "bare", "edge", "cold")
	v, err := newVerification()
	if err != nil {
		return nil, err
	}
	warm, cold := b.requests(100), b.requests(2*b.cold)
	for round := range b.rounds {
		s, err := b.start(ctx, protocol)
		if err != nil {
			return nil, err
		}
		err = b.coldRound(ctx, s, t, round, warm, cold)
		s.stop()
		if err != nil {
			return nil, err
		}
		cost, err := v.cost()
		if err != nil {
			return nil, err
		}
		t.rsa = append(t.rsa, cost)
	}
	return t, nil
}

func (b *bench) coldRound(ctx context.Context, s *setup, t *table, round int, warm, cold [][]byte) error {
	contenders := []contender{
		{name: "bare", addr: s.bare.Addr, process: s.bare},
		{name: "edge", addr: s.edge.Addr, process: s.edge},
		{name: "cold", addr: s.edge.Addr, process: s.edge, once: true},
	}
	before, cold := cold[:len(cold)/2], cold[len(cold)/2:]
	for i, requests := range [][][]byte{warm, warm, before} {
		if err := b.warm(ctx, s, contenders[i], requests); err != nil {
			return fmt.Errorf("%s: %w", contenders[i].name, err)
		}
	}
	for n := range contenders {
		c := contenders[(n+round)%len(contenders)]
		requests := warm
		if c.once {
			requests = cold
		}
		m, err := b.measure(ctx, s, c, requests)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		t.add(round, c.name, m)
	}
	return nil
}
