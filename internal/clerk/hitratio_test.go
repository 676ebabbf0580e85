package clerk

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// anySession makes an entry as a verification does, of a token of the usual size.
func anySession(b *testing.B, n uint64) (digest, *entry) {
	b.Helper()
	claims, err := decodeObject(fmt.Appendf(nil, `{"azp":"https://app.example.com","exp":1767225660,"fea":"o:dashboard,o:teams,u:beta","fva":[3,-1],`+
		`"iat":1767225600,"iss":"https://clerk.example.com","jti":"%020d","nbf":1767225590,"o":{"fpm":"3,2","id":"org_%026d","per":"manage,read","rol":"admin","slg":"acme"},`+
		`"pla":"o:pro","sid":"sess_%026d","sts":"active","sub":"user_%026d","v":2}`, n, n%1000, n, n))
	if err != nil {
		b.Fatal(err)
	}
	var key [8]byte
	binary.LittleEndian.PutUint64(key[:], n)
	return sha256.Sum256(key[:]), &entry{identity: newIdentity(claims), exp: 1767225660, keys: still{}, life: time.Hour}
}

// still is a key set that never changes.
type still struct{ KeySet }

func (still) Generation() uint64 { return 0 }

// How many of the requests of N sessions find theirs in the cache of the default size, and what an entry weighs: with all sessions as
// busy as each other, which is the worst case, and with a few that are much busier than most, which is the usual one (Zipf).
func BenchmarkHitRatio(b *testing.B) {
	for _, sessions := range []uint64{1e3, 1e5, 1e6} {
		for _, shape := range []string{"even", "zipf"} {
			b.Run(fmt.Sprintf("%s/%d", shape, sessions), func(b *testing.B) {
				c, err := newCache(defaultMaxIdentities)
				if err != nil {
					b.Fatal(err)
				}
				defer c.close()
				source := rand.New(rand.NewPCG(1, 2))
				zipf := rand.NewZipf(source, 1.1, 10, sessions-1)
				var rules rules
				hits, asked := 0, 0
				ask := func() {
					n := source.Uint64N(sessions)
					if shape == "zipf" {
						n = zipf.Uint64()
					}
					var key [8]byte
					binary.LittleEndian.PutUint64(key[:], n)
					asked++
					if _, ok := c.get(sha256.Sum256(key[:]), &rules, testNow); ok {
						hits++
						return
					}
					c.put(anySession(b, n))
				}
				before := liveHeap()
				for range 10 * defaultMaxIdentities {
					ask()
				}
				c.entries.CleanUp()
				weight := float64(liveHeap()-before) / float64(c.entries.EstimatedSize())
				hits, asked = 0, 0
				for b.Loop() {
					ask()
				}
				b.ReportMetric(float64(hits)/float64(asked), "hits/op")
				b.ReportMetric(weight, "B/entry")
			})
		}
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
