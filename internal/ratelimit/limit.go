package ratelimit

import "time"

// Checked returns the limit with its burst filled in, or ErrLimit.
func (l Limit) Checked() (Limit, error) { return l.checked() }

// Interval is the time that one counted request takes to run out. It is rounded up to whole nanoseconds, so that a
// rate which does not divide a second is never exceeded.
func (l Limit) Interval() time.Duration { return l.interval() }
