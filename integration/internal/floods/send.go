package floods

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/integration/internal/rig"
)

// traffic makes the requests of one kind and looks at their answers.
type traffic struct {
	next  func(n int) []byte
	check func(n int, got rig.Answer)
}

// flood is one kind of traffic beside the good one, or connections that are slow.
type flood struct {
	traffic

	name string
	like string // the accepted requests that it is held against
	slow int
}

// sent is what became of some traffic: how long each answer took, counted from when the request was due if its connection was not free by
// then, and else from when it was sent: that a timer of this process was late is not the edge's doing.
type sent struct {
	requests int
	took     []time.Duration // sorted
}

const connections = 16 // of each kind of traffic

// send sends requests at a rate until it is over, over kept connections; at rate 0 as fast as they are answered.
func (f *run) send(over context.Context, t traffic, rate int) sent {
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		all  sent
		next atomic.Int64
	)
	var every time.Duration
	if rate > 0 {
		every = time.Second / time.Duration(rate)
	}
	began := time.Now()
	for range connections {
		wait.Go(func() {
			took := f.sendOne(over, t, func() (n int, due time.Time) {
				n = int(next.Add(1) - 1)
				if every == 0 {
					return n, time.Now()
				}
				return n, began.Add(time.Duration(n) * every)
			})
			mu.Lock()
			defer mu.Unlock()
			all.took = append(all.took, took...)
		})
	}
	wait.Wait()
	slices.Sort(all.took)
	all.requests = len(all.took)
	return all
}

// sendOne sends what is due over one connection.
func (f *run) sendOne(over context.Context, t traffic, take func() (n int, due time.Time)) (took []time.Duration) {
	c, err := rig.Dial(context.WithoutCancel(over), f.edge.Addr, nil)
	if err != nil {
		f.failf("%v", err)
		return nil
	}
	defer func() { c.Close() }()
	for {
		n, due := take()
		from, ok := until(over, due)
		if !ok {
			return took
		}
		got, keep, err := c.Do(t.next(n))
		if err != nil {
			f.failf("request %d: %v", n, err)
			return took
		}
		took = append(took, time.Since(from))
		t.check(n, got)
		if keep {
			continue
		}
		c.Close()
		if c, err = rig.Dial(context.WithoutCancel(over), f.edge.Addr, nil); err != nil {
			f.failf("%v", err)
			return took
		}
	}
}

// until waits for a moment and returns it, or when the waiting ended if that was later. It says whether it came before the end.
func until(over context.Context, due time.Time) (from time.Time, ok bool) {
	if time.Until(due) <= 0 {
		return due, over.Err() == nil
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-over.Done():
		return due, false
	case <-timer.C:
		return time.Now(), over.Err() == nil
	}
}

// drip opens connections and sends them headers byte by byte that do not end, a connection or a byte at a time at the rate of a flood. Those
// it counts as requests.
func (f *run) drip(over context.Context, count int) sent {
	conns := make([]*rig.Conn, 0, count)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	began := time.Now()
	for n := 0; ; n++ {
		if _, ok := until(over, began.Add(time.Duration(n)*time.Second/time.Duration(f.Rate))); !ok {
			return sent{requests: n}
		}
		text := "a"
		if n < count {
			c, err := rig.Dial(context.WithoutCancel(over), f.edge.Addr, nil)
			if err != nil {
				f.failf("slow connections: %v", err)
				return sent{}
			}
			conns = append(conns, c)
			text = "GET " + target + " HTTP/1.1\r\nHost: edge.test\r\nX-Slow: "
		}
		if err := conns[n%count].Send([]byte(text)); err != nil {
			f.failf("slow connections: %v", fmt.Errorf("closed early: %w", err))
			return sent{requests: n}
		}
	}
}
