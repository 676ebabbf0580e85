package share

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// Result is what became of a request.
type Result string

// The results.
const (
	Hit       Result = "hit"       // answered from memory
	Stale     Result = "stale"     // answered from memory, while a new answer is fetched
	Miss      Result = "miss"      // Tinybird was asked for it
	Collapsed Result = "collapsed" // waited for what Tinybird was asked for by another request
	Bypass    Result = "bypass"    // not answered here
)

// Outcome is what the operator wants to know about a request.
type Outcome struct {
	Result Result
	// Upstream is about the request to Tinybird, for one of those who waited for it; for all others it is zero.
	Upstream forward.Outcome
}

// cacheName is the name of this cache in Cache-Status (RFC 9211, section 2).
const cacheName = "caddy-tinybird"

// Details of a Cache-Status: why an answer is not shared.
const (
	DetailBody        = "body"        // the request's body is too large
	DetailConditional = "conditional" // a POST with conditions
	DetailEncoding    = "encoding"    // the client takes neither gzip nor a plain body
	DetailParameter   = "parameter"   // a value that no key is made of
	detailEncoding    = "answer-encoding"
	detailStatus      = "answer-status"
	detailTooLarge    = "answer-size"
	detailBusy        = "memory"
)

// SetBypass says that a request is forwarded by itself, and why.
func SetBypass(h http.Header, detail string) {
	v := cacheName + "; fwd=bypass"
	if detail != "" {
		v += "; detail=" + detail
	}
	h["Cache-Status"] = []string{v}
}

func bypass(w http.ResponseWriter, detail string) (Outcome, error) {
	SetBypass(w.Header(), detail)
	return Outcome{Result: Bypass}, nil
}

// setHit says how old the answer is, and for how long it is still fresh; less than 0 for one that is stale.
func setHit(h http.Header, age, ttl time.Duration) {
	left := (ttl - age) / time.Second
	if age >= ttl {
		left = -((age - ttl) / time.Second)
	}
	h["Cache-Status"] = []string{cacheName + "; hit; ttl=" + strconv.FormatInt(int64(left), 10)}
	h["Age"] = []string{strconv.FormatInt(int64(age/time.Second), 10)}
}

// setForwarded says that Tinybird was asked, with which status it answered, if it did, and what became of the answer.
func setForwarded(h http.Header, result Result, status int, stored bool, detail string) {
	v := cacheName + "; fwd=miss"
	if status != 0 {
		v += "; fwd-status=" + strconv.Itoa(status)
	}
	if stored {
		v += "; stored"
	}
	if result == Collapsed {
		v += "; collapsed"
	}
	if detail != "" {
		v += "; detail=" + detail
	}
	h["Cache-Status"] = []string{v}
}

// claim is a value that one of several gets.
type claim[T any] struct{ value atomic.Pointer[T] }

func (c *claim[T]) set(v T) { c.value.Store(&v) }

// take returns the value to the first who asks, and then zero.
func (c *claim[T]) take() (v T) {
	if p := c.value.Swap(nil); p != nil {
		v = *p
	}
	return v
}
