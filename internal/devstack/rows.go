package devstack

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Row is one event. Amount is in hundredths, so that sums are exact; an event without a sale has 0.
type Row struct {
	OrganizationID, UserID, TeamID string
	TS                             time.Time
	Path                           string
	AmountCents                    uint64
	Country                        string
}

const (
	seed     = 20260101
	days     = 30
	maxRows  = 50_000
	maxCatch = 1800 // live rows made at once, when nobody asked for long
)

type member struct {
	userID string
	teams  []string
}

type tenant struct {
	id      string
	rows    int
	members []member
	paths   []string
}

// Teams and countries are shared by the tenants and paths are not, so that a leak is seen at a glance and is not
// hidden by a filter on something else.
func tenants() []tenant {
	return []tenant{
		{
			id: AcmeID, rows: 1800,
			members: []member{
				{adaID, []string{TeamSales, TeamOps}},
				{benID, []string{TeamOps}},
				{"user_2abetHF4vUCsMehGAkWvj7FAc9Q", []string{TeamSales}},
			},
			paths: []string{"/acme/anvils", "/acme/rockets", "/acme/magnets", "/acme/pricing", "/acme/docs", "/acme/checkout"},
		},
		{
			id: GlobexID, rows: 1200,
			members: []member{
				{cleoID, []string{TeamOps}},
				{"user_2cydeWJKY40uvSwMFLZDe1f8rES", []string{TeamSales}},
			},
			paths: []string{"/globex/domes", "/globex/hammocks", "/globex/lasers", "/globex/pricing", "/globex/checkout"},
		},
		{
			id: InitechID, rows: 600,
			members: []member{
				{"user_2ianQedUStPKR0CsTy4Qwb8DwkN", []string{TeamOps}},
				{"user_2ivyhFdnXsiVpzz63FfkCzJr4i0", []string{TeamSales}},
			},
			paths: []string{"/initech/reports", "/initech/staplers", "/initech/checkout"},
		},
	}
}

// generate makes the rows of the 30 days before anchor, oldest first. The same anchor gives the same rows.
func generate(anchor time.Time) []Row {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // sample data has to be the same on every run
	var rows []Row
	for _, t := range tenants() {
		for range t.rows {
			ago := time.Duration(1+r.IntN(days*24*3600-1)) * time.Second
			rows = append(rows, t.event(r, anchor.Add(-ago)))
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return a.TS.Compare(b.TS) })
	return rows
}

func (t tenant) event(r *rand.Rand, at time.Time) Row {
	m := pick(r, t.members)
	row := Row{
		OrganizationID: t.id, UserID: m.userID, TeamID: pick(r, m.teams), TS: at,
		Path: pick(r, t.paths), Country: pick(r, []string{"DE", "ES", "FR", "GB", "JP", "US"}),
	}
	if r.IntN(5) == 0 {
		row.AmountCents = uint64(500 + r.IntN(20_000)) //nolint:gosec // positive and small
	}
	return row
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// store holds the rows and, if every is set, goes on making one each time so much of the clock has passed.
type store struct {
	every  time.Duration
	anchor time.Time

	mu   sync.Mutex
	rows []Row
	next int64 // number of the next live row; row n happens at anchor + n*every
}

func newStore(now time.Time, every time.Duration) *store {
	anchor := now.UTC().Truncate(time.Second)
	return &store{every: every, anchor: anchor, rows: generate(anchor), next: 1}
}

// at returns the rows up to now, oldest first. The slice is never written to again below its length.
func (s *store) at(now time.Time) []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.every > 0 {
		last := int64(now.Sub(s.anchor) / s.every)
		s.next = max(s.next, last-maxCatch)
		for ; s.next <= last; s.next++ {
			s.rows = append(s.rows, s.live(s.next))
		}
		if drop := len(s.rows) - maxRows; drop > 0 {
			s.rows = slices.Clone(s.rows[drop:])
		}
	}
	return slices.Clip(s.rows)
}

// live makes row n out of n alone, so that what is asked for, and when, does not change it.
func (s *store) live(n int64) Row {
	r := rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // sample data, see generate; n is positive
	return pick(r, tenants()).event(r, s.anchor.Add(time.Duration(n)*s.every))
}
