package sharedlimit

import (
	"context"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/ratelimit"
)

// realRedis starts a Redis server if this machine has one.
func realRedis(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server on PATH")
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 3000 {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return addr
		}
		<-tick.C
	}
	t.Fatal("redis-server does not listen")
	return ""
}

// The script decides as the local limiter in Redis' own Lua, too. The clock is the test's.
func TestScriptInRealRedis(t *testing.T) {
	t.Parallel()
	c := redis.NewClient(&redis.Options{Addr: realRedis(t)})
	defer c.Close()
	text := script
	for _, change := range [][2]string{
		{"redis.call('TIME')", "{ARGV[3], ARGV[4]}"},
		{"string.format('%.0f', ttl)", "3600000"}, // not while the test runs
	} {
		if strings.Count(text, change[0]) != 1 {
			t.Fatalf("the script has no %s any more", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	own := ratelimit.New(ratelimit.Options{Now: func() time.Time { return now }})
	rng := rand.New(rand.NewPCG(9, 10))
	for round := range 200 {
		lims := make([]ratelimit.Limit, 1+rng.IntN(3))
		for i := range lims {
			lims[i] = randomLimit(rng)
		}
		key := strconv.Itoa(round)
		for range 40 {
			lim := lims[rng.IntN(len(lims))]
			if rng.IntN(3) == 0 {
				now = now.Add(time.Duration(rng.Int64N(int64(lim.Interval())*3/int64(time.Microsecond)+2)) * time.Microsecond)
			}
			want, err := own.Allow(key, lim)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := c.Eval(t.Context(), text, []string{key}, int64(lim.Interval()), lim.Burst, now.Unix(), now.Nanosecond()/1000).Int64()
			if err != nil {
				t.Fatal(err)
			}
			if got := result(answer, lim); got != want {
				t.Fatalf("%+v\n got %+v\nwant %+v", lims, got, want)
			}
		}
	}
}
