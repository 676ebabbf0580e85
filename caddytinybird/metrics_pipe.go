package caddytinybird

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// noPipes are the names that stand for no pipe.
var noPipes = []string{otherPipe, eventsPipe, tokenPipe}

// series are those of one metric with one label. A request finds its own without a lock.
type series[T any] struct {
	known atomic.Pointer[map[string]T]
	mu    sync.Mutex
	begin func(label string) T
}

// newSeries returns series of which those with the labels exist from the start, at zero: a rate over a counter that begins
// with its first event does not see that event.
func newSeries[T any](begin func(label string) T, labels ...string) *series[T] {
	s := &series[T]{begin: begin}
	s.known.Store(new(map[string]T))
	for _, label := range labels {
		s.of(label)
	}
	return s
}

// of returns the one with the label.
func (s *series[T]) of(label string) T {
	if one, ok := (*s.known.Load())[label]; ok {
		return one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := (*s.known.Load())[label]; ok {
		return one
	}
	grown := make(map[string]T)
	maps.Copy(grown, *s.known.Load())
	grown[label] = s.begin(label)
	s.known.Store(&grown)
	return grown[label]
}

// pipeSeries is what is counted of one pipe, for all handlers that list it.
type pipeSeries struct {
	requests *series[prometheus.Counter]  // by code
	upstream *series[prometheus.Observer] // by class of status
	cache    *series[prometheus.Counter]  // by result
	limited  func() prometheus.Counter
	refused  func() prometheus.Counter
	busy     func() prometheus.Counter
	dropped  func() prometheus.Counter

	users int // handlers that list the pipe; collectors.mu guards it

	mu    sync.Mutex
	ended bool
}

// pipe returns the series of a pipe. The caller holds c.mu, or is alone.
func (c *collectors) pipe(name string) *pipeSeries {
	if p, ok := c.pipes[name]; ok {
		return p
	}
	p := new(pipeSeries)
	counter := func(vec *prometheus.CounterVec, more ...string) prometheus.Counter {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended {
			// Of a request of an old config. What it counts must not bring the pipe back.
			return prometheus.NewCounter(prometheus.CounterOpts{})
		}
		return vec.WithLabelValues(append([]string{name}, more...)...)
	}
	p.requests = newSeries(func(code string) prometheus.Counter { return counter(c.requests, code) })
	p.cache = newSeries(func(result string) prometheus.Counter { return counter(c.cache, result) })
	p.limited = sync.OnceValue(func() prometheus.Counter { return counter(c.limited) })
	p.refused = sync.OnceValue(func() prometheus.Counter { return counter(c.refused) })
	p.busy = sync.OnceValue(func() prometheus.Counter { return counter(c.busy) })
	p.dropped = sync.OnceValue(func() prometheus.Counter { return counter(c.dropped) })
	p.upstream = newSeries(func(class string) prometheus.Observer {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended {
			return prometheus.NewHistogram(prometheus.HistogramOpts{})
		}
		return c.upstream.WithLabelValues(name, class)
	})
	c.pipes[name] = p
	return p
}

// beginLimits has the refusals of all limits begin at zero, so that they can be added up.
func (p *pipeSeries) beginLimits() {
	p.limited()
	p.refused()
	p.busy()
}

// acquirePipes returns the series of the pipes that a handler lists, and of what is no pipe.
func (c *collectors) acquirePipes(names []string) map[string]*pipeSeries {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := make(map[string]*pipeSeries, len(names)+len(noPipes))
	for _, name := range noPipes {
		held[name] = c.pipe(name)
	}
	for _, name := range names {
		p := c.pipe(name)
		p.users++
		p.requests.of("ok")
		p.upstream.of("2xx")
		p.beginLimits()
		p.dropped()
		held[name] = p
	}
	return held
}

// releasePipes gives them back. A pipe that no handler lists any more leaves the metrics.
func (c *collectors) releasePipes(names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		p := c.pipes[name]
		p.users--
		if p.users > 0 {
			continue
		}
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		delete(c.pipes, name)
		of := prometheus.Labels{labelPipe: name}
		c.requests.DeletePartialMatch(of)
		c.limited.DeletePartialMatch(of)
		c.refused.DeletePartialMatch(of)
		c.busy.DeletePartialMatch(of)
		c.dropped.DeletePartialMatch(of)
		c.upstream.DeletePartialMatch(of)
		c.cache.DeletePartialMatch(of)
	}
}

// countPipes begins the metrics of the handler's pipes.
func (h *Handler) countPipes() {
	h.counted = h.policy.Pipes()
	h.series = metrics.acquirePipes(h.counted)
}

// uncountPipes ends them. Requests of the old config may still count.
func (h *Handler) uncountPipes() {
	metrics.releasePipes(h.counted)
	h.counted = nil
}

// of returns what is counted of a pipe, or of what stands for one.
func (h *Handler) of(pipe string) *pipeSeries {
	if p, ok := h.series[pipe]; ok {
		return p
	}
	return h.series[otherPipe]
}
