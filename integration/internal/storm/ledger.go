package storm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ledger is how everything ended.
type ledger struct {
	mu      sync.Mutex
	ids     int64
	kinds   map[string]*Outcome
	reasons map[string]int
	faults  []string
	total   int
	bad     int
	seen    bits             // attempts that Tinybird saw
	hit     map[int64]string // attempts that a fault of Tinybird hit
	fetches map[string][]hit // questions that are asked for several at once, and what hit their latest fetches
	open    map[int64]string // attempts that nothing came back for
	rows    map[int64]*batch
}

// hit is a fault of Tinybird that hit a fetch.
type hit struct {
	name string
	at   time.Time // when the fetch came to Tinybird
}

// batch are the rows of one request.
type batch struct {
	org      string
	sent     int
	stored   map[string]int
	accepted bool
}

func newLedger() *ledger {
	return &ledger{
		kinds: make(map[string]*Outcome), reasons: make(map[string]int), hit: make(map[int64]string), fetches: make(map[string][]hit),
		open: make(map[int64]string), rows: make(map[int64]*batch),
	}
}

func (l *ledger) newID() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ids++
	return l.ids
}

func (l *ledger) kind(name string) *Outcome {
	l.total++
	o := l.kinds[name]
	if o == nil {
		o = new(Outcome)
		l.kinds[name] = o
	}
	return o
}

func (l *ledger) right(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kind(kind).Right++
}

func (l *ledger) explained(kind, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kind(kind).Explained++
	l.reasons[why]++
}

func (l *ledger) wrong(kind string, id int64, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(kind, id, what)
}

func (l *ledger) fail(kind string, id int64, what string) {
	l.kind(kind).Wrong++
	l.bad++
	if len(l.faults) < 50 {
		l.faults = append(l.faults, fmt.Sprintf("%s, att_%d: %s", kind, id, what))
	}
}

func (l *ledger) unanswered(kind string, id int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[id] = kind + ": " + strings.ReplaceAll(err.Error(), "\n", ", ")
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func (l *ledger) wrongs() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad
}

func (l *ledger) upstream(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen.set(id)
}

func (l *ledger) wentUp(id int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen.has(id)
}

func (l *ledger) struck(id int64, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hit[id] = why
}

func (l *ledger) strikes(id int64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hit[id]
}

func (l *ledger) struckFetch(question, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const latest = 16
	hits := l.fetches[question]
	hits = append(hits, hit{why, time.Now()})
	l.fetches[question] = hits[max(0, len(hits)-latest):]
}

// strikesFetch is a fault, of those that can have that outcome, that hit a fetch of the question since then.
func (l *ledger) strikesFetch(question, code string, since time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range slices.Backward(l.fetches[question]) {
		if h.at.After(since) && explains(h.name, code) {
			return h.name
		}
	}
	return ""
}

// explains says whether a fault can be why a request ended with the code. Nothing but a Tinybird that hangs makes it late.
func explains(name, code string) bool {
	return code != "upstream_timeout" || strings.HasPrefix(name, "hangs")
}

// sends notes rows before they are sent, and accepted that the client was told that they will be stored.
func (l *ledger) sends(a *ask, count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[a.id] = &batch{org: a.session.org, sent: count, stored: make(map[string]int)}
}

func (l *ledger) accepted(a *ask) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows[a.id].accepted = true
}

// stored looks at a row that has come to the data source.
func (l *ledger) stored(row []byte) {
	var members map[string]string
	if err := json.Unmarshal(row, &members); err != nil {
		l.wrong("rows", 0, fmt.Sprintf("%v: %s", err, row))
		return
	}
	name := members["row"]
	id := attemptOf(name[:max(0, strings.LastIndexByte(name, '_'))])
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.rows[id]
	if b == nil || members["organization_id"] != b.org || anyOrg.FindString(strings.ReplaceAll(string(row), b.org, "")) != "" {
		l.fail("rows", id, "stored as "+string(row))
		return
	}
	b.stored[name]++
}

// close decides what was open: who was not answered although Caddy had the request, and rows that were accepted and are not there.
func (l *ledger) close(watch *logWatch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, what := range l.open {
		kind, _, _ := strings.Cut(what, ":")
		if watch.has(id) || l.seen.has(id) {
			l.kind(kind).Lost++
			l.fail(kind, id, "accepted and not answered: "+what)
			continue
		}
		l.kind(kind).NotAccepted++
	}
	for id, b := range l.rows {
		for name, n := range b.stored {
			if n > 1 {
				l.fail("rows", id, fmt.Sprintf("%s is there %d times", name, n))
			}
		}
		if b.accepted && len(b.stored) != b.sent {
			l.fail("rows", id, fmt.Sprintf("%d of %d are there", len(b.stored), b.sent))
		}
	}
}

// bits is a set of numbers that begin at 0.
type bits []uint64

func (b *bits) set(n int64) {
	for int64(len(*b)) <= n/64 {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b *bits) has(n int64) bool { return n/64 < int64(len(*b)) && (*b)[n/64]&(1<<(n%64)) != 0 }

// logWatch reads the log for the attempts in it, and passes it on.
type logWatch struct {
	next io.Writer // or nil

	mu   sync.Mutex
	rest []byte
	seen bits
}

func (w *logWatch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		if end < 0 {
			break
		}
		w.line(w.rest[:end])
		w.rest = w.rest[end+1:]
	}
	if w.next == nil {
		return len(p), nil
	}
	return w.next.Write(p)
}

func (w *logWatch) line(line []byte) {
	const header = `"X-Attempt":["att_`
	_, after, ok := bytes.Cut(line, []byte(header))
	if !ok {
		return
	}
	digits, _, _ := bytes.Cut(after, []byte(`"`))
	if n, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
		w.seen.set(n)
	}
}

func (w *logWatch) has(n int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.has(n)
}
