package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// table is what was measured of some contenders, round by round.
type table struct {
	title string
	base  string // the contender that the others are compared with
	names []string
	rows  map[string][]measurement
	rsa   []time.Duration // of one verification in each round, for a table of cold requests
}

func newTable(title, base string, names ...string) *table {
	return &table{title: title, base: base, names: names, rows: make(map[string][]measurement)}
}

func (t *table) add(round int, name string, m measurement) {
	if len(t.rows[name]) != round {
		return // measured twice in a round: the order has every contender once
	}
	t.rows[name] = append(t.rows[name], m)
}

// over is the median of a figure, and of its ratio to the base in the same round.
func (t *table) over(name string, figure func(measurement) float64) (value, ratio float64) {
	values := make([]float64, 0, len(t.rows[name]))
	ratios := make([]float64, 0, len(t.rows[name]))
	for round, m := range t.rows[name] {
		values = append(values, figure(m))
		if b := figure(t.rows[t.base][round]); b > 0 {
			ratios = append(ratios, figure(m)/b)
		}
	}
	return rig.Median(values), rig.Median(ratios)
}

// The figures.
func perSecond(m measurement) float64 { return float64(m.requests) / m.elapsed.Seconds() }
func cpuMicros(m measurement) float64 { return m.cpu.Seconds() * 1e6 / float64(max(1, m.requests)) }
func p50Micros(m measurement) float64 { return m.p50.Seconds() * 1e6 }
func p99Micros(m measurement) float64 { return m.p99.Seconds() * 1e6 }
func rssMiB(m measurement) float64    { return float64(m.rss) / (1 << 20) }

func (t *table) String() string {
	var cells, out strings.Builder
	cells.WriteString("\trequests/s\t×\tCPU µs/request\t×\tp50 µs\t×\tp99 µs\t×\tRSS MiB\t×\t\n")
	for _, name := range t.names {
		cells.WriteString(name + "\t")
		for _, f := range []func(measurement) float64{perSecond, cpuMicros, p50Micros, p99Micros, rssMiB} {
			value, ratio := t.over(name, f)
			fmt.Fprintf(&cells, "%.0f\t%.2f\t", value, ratio)
		}
		cells.WriteByte('\n')
	}
	out.WriteString("\n" + t.title + "\n")
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	// Writing to a strings.Builder does not fail.
	_, _ = tw.Write([]byte(cells.String()))
	_ = tw.Flush()
	if len(t.rsa) == 0 {
		return out.String()
	}
	ratios, costs := make([]float64, 0, len(t.rsa)), make([]float64, 0, len(t.rsa))
	for round, m := range t.rows["cold"] {
		cost := t.rsa[round].Seconds() * 1e6
		costs = append(costs, cost)
		ratios = append(ratios, cpuMicros(m)/(cpuMicros(t.rows["edge"][round])+cost))
	}
	fmt.Fprintf(&out, "cold ÷ (warm + one RSA-2048 verification of %.0f µs): %.2f\n", rig.Median(costs), rig.Median(ratios))
	return out.String()
}

// verification is what a new session must cost at least.
type verification struct {
	key       *rsa.PrivateKey
	sum       [sha256.Size]byte
	signature []byte
}

func newVerification() (*verification, error) {
	v := &verification{sum: sha256.Sum256(make([]byte, 900))}
	var err error
	if v.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, fmt.Errorf("a key: %w", err)
	}
	if v.signature, err = rsa.SignPKCS1v15(rand.Reader, v.key, crypto.SHA256, v.sum[:]); err != nil {
		return nil, fmt.Errorf("a signature: %w", err)
	}
	return v, nil
}

// cost measures the CPU time of one RSA-2048 verification, as that of the proxies is: from what the system counts, with every
// core at work. A core that shares its parts with a busy one takes longer for the same. This process does nothing else meanwhile.
func (v *verification) cost() (time.Duration, error) {
	const times = 20_000
	before, err := rig.OwnCPU()
	if err != nil {
		return 0, err
	}
	var wg errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() error {
			for range times {
				if err := rsa.VerifyPKCS1v15(&v.key.PublicKey, crypto.SHA256, v.sum[:], v.signature); err != nil {
					return fmt.Errorf("a verification: %w", err)
				}
			}
			return nil
		})
	}
	if err := wg.Wait(); err != nil {
		return 0, err //nolint:wrapcheck // wrapped above
	}
	after, err := rig.OwnCPU()
	return (after - before) / time.Duration(times*runtime.GOMAXPROCS(0)), err
}
