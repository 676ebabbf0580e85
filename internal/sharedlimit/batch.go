package sharedlimit

import (
	"cmp"
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

const (
	// workers is how many round trips can be under way at once. While they are, further questions wait and then share the next
	// one: more workers make the waiting shorter and each round trip dearer.
	workers = 2
	// maxBatch is how many questions share a round trip at most.
	maxBatch = 128
	// maxQueue is how many questions may wait. With more than that the store is too slow to be of use.
	maxQueue = 4096
)

// call is one question to the store.
type call struct {
	key      string
	interval int64
	burst    int
	deadline time.Time // when nobody waits for the answer any more
	timer    *time.Timer

	answer int64
	err    error
	done   chan struct{} // has one element when the answer is there
}

func (s *Store) newCall(key string, lim ratelimit.Limit) *call {
	c, ok := s.idle.Get().(*call)
	if !ok {
		c = &call{timer: time.NewTimer(time.Hour), done: make(chan struct{}, 1)}
		c.timer.Stop()
	}
	c.key, c.interval, c.burst = key, int64(lim.Interval()), lim.Burst
	c.answer, c.err = 0, nil
	return c
}

// ask returns the script's answer. It waits no longer than the time-out.
func (s *Store) ask(key string, lim ratelimit.Limit, now time.Time) (int64, error) {
	c := s.newCall(key, lim)
	c.deadline = now.Add(s.timeout)
	select {
	case s.queue <- c:
	default:
		return 0, errBusy
	}
	c.timer.Reset(s.timeout)
	select {
	case <-c.done:
		c.timer.Stop()
		answer, err := c.answer, c.err
		s.idle.Put(c)
		return answer, err
	case <-c.timer.C:
		return 0, errTimeout // the worker still has c
	case <-s.ctx.Done():
		return 0, errClosed
	}
}

// work asks what is waiting to be asked, until the store is closed.
func (s *Store) work() {
	batch := make([]*call, 0, maxBatch)
	for {
		select {
		case <-s.ctx.Done():
			return
		case c := <-s.queue:
			batch = s.collect(batch[:0], c)
			s.exchange(s.ctx, batch, s.timeout)
			for _, c := range batch {
				c.done <- struct{}{}
			}
			clear(batch)
		}
	}
}

// collect puts c and what else is waiting into a batch, but for what nobody waits for any more.
func (s *Store) collect(batch []*call, c *call) []*call {
	now := time.Now()
	for {
		if now.Before(c.deadline) {
			batch = append(batch, c)
		}
		if len(batch) == maxBatch {
			return batch
		}
		select {
		case c = <-s.queue:
		default:
			return batch
		}
	}
}

// exchange asks a batch of questions in one round trip. Only when the store does not know the script there is a second one.
func (s *Store) exchange(ctx context.Context, batch []*call, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.run(ctx, batch, "evalsha", scriptDigest)
	unknown := batch[:0:0]
	for _, c := range batch {
		if c.err != nil && redis.HasErrorPrefix(c.err, "NOSCRIPT") {
			unknown = append(unknown, c)
		}
	}
	s.run(ctx, unknown, "eval", script)
}

func (s *Store) run(ctx context.Context, batch []*call, command, what string) {
	if len(batch) == 0 {
		return
	}
	answers := make([]*redis.IntCmd, len(batch))
	pipe := s.client.Pipeline()
	for i, c := range batch {
		answers[i] = redis.NewIntCmd(ctx, command, what, 1, c.key, c.interval, c.burst)
		_ = pipe.Process(ctx, answers[i]) // only queues it
	}
	_, err := pipe.Exec(ctx)
	for i, c := range batch {
		c.answer, c.err = answers[i].Result()
		// Each command has its own error, but for one: when the store refuses the credentials, the client sends no command, and only
		// says so here. The script's answer is never 0.
		if c.err == nil && c.answer == 0 {
			c.err = cmp.Or(err, errUnanswered)
		}
	}
}
