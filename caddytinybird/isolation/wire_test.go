package isolation_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// On the wire many connections are open at once, so each request has a mark of its own in a parameter that goes up and that the
// rows repeat. By it everything that goes up and that comes back is held to the request that it belongs to.

// ticket is what is known of a request by its mark.
type ticket struct {
	sites []*site
	who   []claimant
	sent  string // for the message of a failure
}

// traffic is what is known of a group's requests on the wire. It outlives a world: an answer that was to be shared is fetched to its end
// even if whoever asked is gone, and may go up when the next world has begun.
type traffic struct {
	s       *setting
	g       *group
	before  []*site    // of the world before
	asking  sync.Mutex // what was asked before belongs to the group
	next    atomic.Uint64
	tickets sync.Map // by mark
	senders sync.Map // of all requests
}

var aTicket = regexp.MustCompile(`k[0-9a-f]{12}z`)

// mark puts a mark on a request, and takes down who sends it.
func (w *traffic) mark(q *question) string {
	// A digest, so that one spoiled digit makes no other request's mark.
	digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, w.next.Add(1)))
	id := fmt.Sprintf("k%xz", digest[:6])
	sep := "?"
	if strings.Contains(q.target, "?") {
		sep = "&"
	}
	q.target += sep + markerParam + "=" + id
	who := w.senderOf(q.write())
	sites := []*site{q.site}
	if !strings.HasPrefix(q.target, "/") {
		sites = w.g.sites // the target may name another one
	}
	w.tickets.Store(id, &ticket{sites, who, string(q.write())})
	return id
}

// blur says of requests whose bytes were mixed that each could be of anybody who is in them, to any site.
func (w *traffic) blur(raw []byte, ids []string) {
	who := w.senderOf(raw)
	for _, id := range ids {
		w.tickets.Store(id, &ticket{w.g.sites, who, string(raw)})
	}
}

// senderOf are all whose credentials are in the bytes.
func (w *traffic) senderOf(raw []byte) (who []claimant) {
	text := string(raw)
	if !strings.Contains(text, "eyJ") {
		return nil
	}
	for token, p := range w.s.tokens {
		if strings.Contains(text, token) {
			who = append(who, claimant{person: p})
			w.senders.Store(p, true)
		}
	}
	for _, k := range w.g.templates {
		if strings.Contains(text, k.token) {
			who = append(who, claimant{template: k})
		}
	}
	return who
}

// wentUp holds what went up since the last time to the promises.
func (w *traffic) wentUp() (int, error) {
	up := w.g.api.Requests()
	w.g.api.Reset()
	for _, one := range up {
		if err := w.one(one); err != nil {
			return 0, fmt.Errorf("%w\nwent up: %+v", err, one)
		}
	}
	return len(up), nil
}

func (w *traffic) one(up devstack.Recorded) error {
	var sites []*site
	var who []claimant
	sent := ""
	if id := aTicket.FindString(up.RawQuery); id != "" {
		if known, ok := w.tickets.Load(id); ok {
			who, sites, sent = known.(*ticket).who, known.(*ticket).sites, known.(*ticket).sent
		}
	}
	if who == nil { // the mark is gone, as for rows: then it has to be somebody who sends
		w.senders.Range(func(p, _ any) bool {
			who = append(who, claimant{person: p.(*person)})
			return true
		})
		for _, k := range w.g.templates {
			who = append(who, claimant{template: k})
		}
		sites = slices.Concat(w.g.sites, w.before)
	}
	var err error
	for _, site := range sites {
		if _, _, err = w.g.upstream(w.s, site, up, who, true); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w\nsent: %q", err, sent)
}

// cameBack holds an answer to the requests that were sent on its connection, or on its stream.
func (w *traffic) cameBack(body []byte, ids []string) error {
	if !aMark.Match(body) {
		return nil
	}
	if id := aTicket.FindString(string(body)); id != "" {
		_, known := w.tickets.Load(id)
		switch {
		case slices.Contains(ids, id):
			ids = []string{id}
		case known:
			return fmt.Errorf("the answer to another connection's request came back: %s", body)
		}
	}
	err := errors.New("rows came back to nobody")
	for _, id := range ids {
		known, _ := w.tickets.Load(id)
		t := known.(*ticket)
		for _, site := range t.sites {
			for _, p := range site.pipes {
				if err = p.answer(body, t.who); err == nil {
					return nil
				}
			}
		}
	}
	return err
}

// ask asks something ordinary in the name of a random tenant, and wants the right answer.
func (w *traffic) ask(r *rand.Rand, client *http.Client) error {
	a := &asker{r, w.s, w.g}
	for range 50 {
		site := pick(r, w.g.sites)
		p := site.pipes[pick(r, site.listed)]
		q := &question{kind: "plain", site: site, me: pick(r, w.s.people), method: "GET", target: site.prefix + "/v0/pipes/" + p.name + ".json"}
		if _, ok := p.tenant(claimant{person: q.me}); !ok {
			continue
		}
		return w.askOne(a, client, q, p)
	}
	return nil
}

func (w *traffic) askOne(a *asker, client *http.Client, q *question, p *pipe) error {
	id := w.mark(q)
	a.session(q)
	mine := []claimant{{person: q.me}}
	w.tickets.Store(id, &ticket{[]*site{q.site}, mine, q.target})
	w.senders.Store(q.me, true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, q.method, fmt.Sprintf("http://127.0.0.1:%d%s", w.s.port, q.target), http.NoBody)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	req.Host = q.site.host
	for _, h := range q.header {
		req.Header.Add(h[0], h[1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("an ordinary request: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("an ordinary request: %w", err)
	case resp.StatusCode == http.StatusTooManyRequests && q.site.rate > 0:
		return nil
	case resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(id)):
		return fmt.Errorf("an ordinary request of %s was answered %d %s", id, resp.StatusCode, body)
	}
	return p.answer(body, mine)
}

// session shows who asks, as the site takes it.
func (a *asker) session(q *question) {
	switch source := q.site.sources[0]; source {
	case "header":
		q.header = append(q.header, [2]string{"Authorization", "Bearer " + q.me.token})
	case "cookie":
		q.header = append(q.header, [2]string{"Cookie", q.me.cookie})
	default:
		q.target += "&" + strings.TrimPrefix(source, "query ") + "=" + url.QueryEscape(q.me.token)
	}
}

// wireWorkers is how many connections of a group are open at once, wireBatch how many each has in turn until what went up is looked at,
// and wireRounds how often that is until the config changes.
const (
	wireWorkers = 12
	wireBatch   = 10
	wireRounds  = 2
)

// attack runs hostile connections, and ordinary requests beside them, until there were as many as are wanted.
func attack(t *testing.T, name string, cases, proto int, one func(*traffic, *rand.Rand) (answers int, err error)) {
	t.Helper()
	s := newSetting(t)
	seed := rand.Uint64()
	if list, only := seeds(t); only {
		seed = list[0]
	}
	var up, answered, done int
	var traffics []*traffic
	for n, g := range s.groups {
		traffics = append(traffics, &traffic{s: s, g: g})
		traffics[n].next.Store(uint64(n) << 40)
	}
	for round := 0; done < cases; round++ {
		world := seed + uint64(round)
		for _, w := range traffics {
			w.before = w.g.sites
		}
		s.move(t)
		if _, err := s.load(world); err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		var mu sync.Mutex
		for n, w := range traffics {
			wait.Go(func() {
				transport := &http.Transport{Protocols: new(http.Protocols)}
				transport.Protocols.SetHTTP1(proto == 1)
				transport.Protocols.SetUnencryptedHTTP2(proto == 2)
				defer transport.CloseIdleConnections()
				client := &http.Client{Transport: transport}
				for round := range wireRounds {
					answers, err := w.batch(world, n, round, client, one)
					more, upErr := w.wentUp()
					mu.Lock()
					up, answered, done = up+more, answered+answers, done+wireWorkers*wireBatch
					mu.Unlock()
					if err = errors.Join(err, upErr); err != nil {
						t.Errorf("%s\nrun it again: ISOLATION_SEED=%d go test -run '^%s$' ./caddytinybird/isolation", s.short(err.Error()), world, t.Name())
						return
					}
				}
			})
		}
		wait.Wait()
		if t.Failed() {
			return
		}
	}
	t.Logf("%s: %d hostile connections got %d answers, as many ordinary requests beside them were answered rightly, %d requests went up", name, done, answered, up)
	if answered < done/10 || up < done/20 {
		t.Errorf("%d answers to %d connections, and %d went up: that shows nothing", answered, done, up)
	}
}

func (w *traffic) batch(world uint64, group, round int, client *http.Client, one func(*traffic, *rand.Rand) (int, error)) (answers int, err error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	for worker := range wireWorkers {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(world, uint64(group)<<40+uint64(round)<<8+uint64(worker)))
			for range wireBatch {
				n, oneErr := one(w, r)
				if oneErr == nil {
					oneErr = w.ask(r, client)
				}
				mu.Lock()
				answers += n
				err = errors.Join(err, oneErr)
				mu.Unlock()
				if oneErr != nil {
					return
				}
			}
		})
	}
	wait.Wait()
	return answers, err
}

// dial connects to Caddy's listener.
func (w *traffic) dial() (net.Conn, error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.s.port))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, conn.SetDeadline(time.Now().Add(20 * time.Second))
}

// questions are a few requests for one connection, of several people, each with its mark.
func (w *traffic) questions(a *asker, n int) (list []*question, ids []string) {
	for range n {
		w.asking.Lock()
		q := a.question()
		w.asking.Unlock()
		ids = append(ids, w.mark(q))
		list = append(list, q)
	}
	return list, ids
}
