package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
)

const (
	// maxDecisions is how many of the latest lines are kept.
	maxDecisions = 60
	// maxLine is the longest line that is read.
	maxLine = 64 << 10
)

// decision is what the page shows of one line that the edge logs about a request. What is not named here is not shown.
type decision struct {
	ID          int             `json:"id"`
	At          float64         `json:"ts"`
	Trace       string          `json:"trace_id,omitempty"`
	User        string          `json:"clerk_user,omitempty"`
	Org         string          `json:"clerk_org,omitempty"`
	Pipe        string          `json:"pipe"`
	Code        string          `json:"code"`
	Status      int             `json:"status,omitempty"`
	Fixed       []string        `json:"params_fixed"`
	Taken       []string        `json:"params_taken"`
	Dropped     []string        `json:"params_dropped"`
	Rate        *int            `json:"rate_limit,omitempty"`
	Remaining   *int            `json:"rate_remaining,omitempty"`
	RetryAfter  *int            `json:"retry_after_seconds,omitempty"`
	TokenCached *bool           `json:"token_cached,omitempty"`
	Cache       string          `json:"cache,omitempty"`
	Steps       json.RawMessage `json:"steps_us"` // an object, whose order matters
	Total       float64         `json:"total_us"`
}

// decisions are the latest lines of the log that the Caddyfile calls decisions. Caddy sends them over a connection, as it would to
// any collector of logs.
type decisions struct {
	serving sync.WaitGroup

	mu    sync.Mutex
	from  io.Closer // the listener, then the connection; nil without one
	kept  []decision
	last  int           // the id of the latest
	news  chan struct{} // is closed with the next one, and at the end
	ended bool
}

func newDecisions() *decisions { return &decisions{news: make(chan struct{})} }

// listen returns the address to which the edge has to send its log. It takes one connection: nobody else can put lines in.
func (d *decisions) listen(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listen for the edge's log: %w", err)
	}
	d.from = ln
	d.serving.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return // closed before an edge came
		}
		d.mu.Lock()
		d.from = conn
		d.mu.Unlock()
		_ = ln.Close()
		d.read(conn)
		_ = conn.Close()
	})
	return ln.Addr().String(), nil
}

// read takes the lines about requests. It never leaves the edge waiting, whatever comes.
func (d *decisions) read(log io.Reader) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		d.add(lines.Bytes())
	}
	_, _ = io.Copy(io.Discard, log)
}

func (d *decisions) add(line []byte) {
	var in struct {
		decision

		Message string `json:"msg"`
	}
	if json.Unmarshal(line, &in) != nil || in.Message != "request decided" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return
	}
	d.last++
	in.ID = d.last
	if len(d.kept) == maxDecisions {
		d.kept = append(d.kept[:0], d.kept[1:]...)
	}
	d.kept = append(d.kept, in.decision)
	close(d.news)
	d.news = make(chan struct{})
}

// since returns the lines that are kept and newer than the one with an id, and what is closed when there are others.
func (d *decisions) since(id int) (newer []decision, news <-chan struct{}, ended bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := max(len(d.kept)-max(d.last-id, 0), 0)
	return append(newer, d.kept[first:]...), d.news, d.ended
}

// end sends everybody home who looks.
func (d *decisions) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended {
		d.ended = true
		close(d.news)
	}
}

func (d *decisions) close() error {
	d.mu.Lock()
	from := d.from
	d.mu.Unlock()
	var err error
	if from != nil {
		if err = from.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	d.serving.Wait()
	return err
}

// decisions sends the lines as events (https://html.spec.whatwg.org/multipage/server-sent-events.html): those that are kept, and each
// one that comes, until the client or the demo ends.
func (a *app) decisions(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.Atoi(r.Header.Get("Last-Event-ID")) // as a browser sends it when it comes again; 0 for anything else
	if after, err := strconv.Atoi(r.URL.Query().Get("after")); err == nil {
		id = max(id, after)
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	stream := http.NewResponseController(w)
	for {
		newer, news, ended := a.demo.decisions.since(id)
		if ended {
			return
		}
		for i := range newer {
			id = newer[i].ID
			data, err := json.Marshal(newer[i])
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", id, data); err != nil {
				return
			}
		}
		if err := stream.Flush(); err != nil {
			return
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}
