package ratelimit

import (
	"net/http"
	"strconv"
	"time"
)

// SetHeaders puts the result on h: RateLimit and RateLimit-Policy as structured fields
// (draft-ietf-httpapi-ratelimit-headers), X-RateLimit-Limit, -Remaining and -Reset as Tinybird sends them, and
// Retry-After if the request was refused. All times are whole seconds, rounded up: a client that waits as long
// as it is told to gets in, and has waited less than a second too long.
func (r Result) SetHeaders(h http.Header) {
	window := 1
	if r.Limit.RPS > 0 && r.Limit.Burst > r.Limit.RPS {
		window = (r.Limit.Burst-1)/r.Limit.RPS + 1
	}
	// All texts are parts of one, and all lists of one: this is done for every request.
	var room [96]byte
	b := append(room[:0], `"default";q=`...)
	b = strconv.AppendInt(b, int64(r.Limit.Burst), 10)
	limit := [2]int{len(`"default";q=`), len(b)}
	b = append(b, `;w=`...)
	b = strconv.AppendInt(b, int64(window), 10)
	policy := len(b)
	b = append(b, `"default";r=`...)
	remaining := [2]int{len(b), 0}
	b = strconv.AppendInt(b, int64(r.Remaining), 10)
	remaining[1] = len(b)
	b = append(b, `;t=`...)
	reset := len(b)
	b = strconv.AppendInt(b, seconds(r.Reset), 10)

	text := string(b)
	values := &[...]string{text[:policy], text[policy:], text[limit[0]:limit[1]], text[remaining[0]:remaining[1]], text[reset:]}
	for i, name := range [...]string{"Ratelimit-Policy", "Ratelimit", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"} {
		h[name] = values[i : i+1 : i+1]
	}
	if !r.Allowed {
		h.Set("Retry-After", strconv.FormatInt(max(seconds(r.RetryAfter), 1), 10))
	}
}

// SetBusyHeaders puts on h that a request was turned away because most others of its key are under way, in the fields that
// SetHeaders uses, so that a client needs to know one kind of 429. When a place will be free nobody knows: a second is what
// the smallest Retry-After can say.
func SetBusyHeaders(h http.Header, most int) {
	limit := strconv.Itoa(most)
	policy := `"concurrency";q=` + limit + `;qu="concurrent-requests"`
	if rate := h.Get("Ratelimit-Policy"); rate != "" {
		policy = rate + ", " + policy
	}
	h.Set("Ratelimit-Policy", policy)
	h.Set("Ratelimit", `"concurrency";r=0;t=1`)
	h.Set("X-Ratelimit-Limit", limit)
	h.Set("X-Ratelimit-Remaining", "0")
	h.Set("X-Ratelimit-Reset", "1")
	h.Set("Retry-After", "1")
}

// seconds rounds d up to whole seconds.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
