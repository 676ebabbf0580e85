package sharedlimit

import (
	"crypto/sha1" //nolint:gosec // the digest that Redis knows scripts by
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"time"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

//go:embed gcra.lua
var script string

var scriptDigest = func() string {
	sum := sha1.Sum([]byte(script)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}()

// keyPrefix begins every key in the store, so that an access list can name them all.
const keyPrefix = "caddy-tinybird:"

// counterKey is where the store counts key. It has one length and one alphabet whatever the key is made of, so keys
// can neither collide nor choose a slot of a cluster, and names of tenants are not written into the store. A scope holds no zero byte.
func counterKey(scope, key string) string {
	const most = 256 // longer ones are rare
	text := make([]byte, 0, most)
	text = append(text, scope...)
	text = append(text, 0)
	text = append(text, key...)
	sum := sha256.Sum256(text)
	name := append(make([]byte, 0, 96), keyPrefix+"limit:"...)
	return string(base64.RawURLEncoding.AppendEncode(name, sum[:]))
}

// probeKey is a key in the same slot of a cluster as another one, and so on the same node.
func probeKey(key string) string { return keyPrefix + "probe:{" + key + "}" }

// result is what the script's answer says, in the terms of ratelimit.
func result(answer int64, lim ratelimit.Limit) ratelimit.Result {
	r := ratelimit.Result{Limit: lim}
	interval := lim.Interval()
	full := time.Duration(lim.Burst) * interval
	if answer < 0 {
		r.Reset = time.Duration(-answer)
		r.RetryAfter = r.Reset + interval - full
		return r
	}
	r.Allowed = true
	r.Reset = time.Duration(answer)
	r.Remaining = int((full - r.Reset) / interval)
	return r
}

// stricter joins what the store and this process say about a request that the store has counted: both limits hold.
func stricter(shared, own ratelimit.Result) ratelimit.Result {
	r := own
	r.Remaining = min(shared.Remaining, own.Remaining)
	r.Reset = max(shared.Reset, own.Reset)
	if !own.Allowed {
		next := shared.Reset - time.Duration(own.Limit.Burst-1)*own.Limit.Interval()
		r.RetryAfter = max(own.RetryAfter, next)
	}
	return r
}
