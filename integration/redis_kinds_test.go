//go:build integration

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

const storePassword = "planted:p@ss/w?rd#%2F"

// storeSite counts in a store, whose address and options are the test's.
const storeSite = `
http://{$EDGE} {
	tinybird {
		` + credentials + `
		rate_limit 1000
		rate_limit redis %s {
			timeout 5s
			%s
		}
		fixed_param organization_id {clerk.org.id}
		pipe live_events
	}
}
`

// countsIn runs an edge and fails the test unless it counts in the store.
func countsIn(t *testing.T, url, options string) *edge {
	t.Helper()
	e := newEdge(t, devstack.Options{})
	e.setenv("REDIS_PASSWORD", storePassword)
	passwordFile := filepath.Join(e.home, "password")
	if err := os.WriteFile(passwordFile, []byte(storePassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.run(t, caddyfile("\tdebug\n", fmt.Sprintf(storeSite, strings.ReplaceAll(url, "{file.PASSWORD}", "{file."+passwordFile+"}"), options)))
	asksFor(t, e)
	// What the edge shows and writes holds no password, in any of the forms that it went through.
	v := new(vault)
	v.add("the store's password", storePassword)
	_, config := e.ask(t, http.MethodGet, "/config/", "", "")
	v.search(t, "the config", config)
	_, metrics := e.ask(t, http.MethodGet, "/metrics", "", "")
	v.search(t, "the metrics", metrics)
	v.search(t, "the log", e.log.String())
	if strings.Contains(e.log.String(), lostLine) {
		t.Errorf("the store was lost\n%s", e.log.tail())
	}
	return e
}

// asksFor makes a few requests, which the store decides.
func asksFor(t *testing.T, e *edge) {
	t.Helper()
	before, _ := e.decisions(t)
	for _, user := range []string{"ada", "cleo", "ada"} {
		ownRows(t, user, e.get(t, user, "/v0/pipes/live_events.json"))
	}
	if byStore, byEdge := e.decisions(t); byStore != before+3 || byEdge != 0 {
		t.Errorf("%v decisions by the store, %v by the edge\n%s", byStore-before, byEdge, e.log.tail())
	}
}

// TestRedisWithPassword: the password of the whole server, out of a variable, and as it is.
func TestRedisWithPassword(t *testing.T) {
	t.Parallel()
	store := startRedis(t, "--requirepass", storePassword)
	c := store.client(t, redis.Options{Password: storePassword})
	countsIn(t, "redis://:{env.REDIS_PASSWORD}@"+store.addr+"/3", "")
	calls := commands(t, c)
	if calls["evalsha"] < 3 || calls["select"] == 0 {
		t.Errorf("the edge's commands were %v", calls)
	}
}

// TestRedisWithAccessList: a user who may do what the documentation says, and no more, out of a file.
func TestRedisWithAccessList(t *testing.T) {
	t.Parallel()
	rule := strings.TrimSpace(accessRule(t))
	store := startRedis(t)
	c := store.client(t, redis.Options{})
	if err := c.Do(t.Context(), rules(strings.ReplaceAll(rule, ">PASSWORD", ">"+storePassword))...).Err(); err != nil {
		t.Fatal(err)
	}
	countsIn(t, "redis://edge:{file.PASSWORD}@"+store.addr, "")
	denied, err := c.Do(t.Context(), "ACL", "LOG").Slice()
	if err != nil || len(denied) != 0 {
		t.Errorf("the access list denied %v (%v)", denied, err)
	}
}

// TestRedisOverTLS: a server with a certificate of an authority of its own, which asks for one of the edge too.
func TestRedisOverTLS(t *testing.T) {
	t.Parallel()
	files := newCertificates(t)
	plain := freeAddr(t)
	_, port, _ := net.SplitHostPort(plain)
	startRedis(t, "--requirepass", storePassword, "--tls-port", port,
		"--tls-cert-file", files.cert, "--tls-key-file", files.key, "--tls-ca-cert-file", files.ca, "--tls-auth-clients", "yes")
	countsIn(t, "rediss://:{env.REDIS_PASSWORD}@"+plain, "ca "+files.ca+"\nclient_certificate "+files.cert+" "+files.key)

	pair, err := tls.LoadX509KeyPair(files.cert, files.key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, files.ca)))
	direct, err := tls.Dial("tcp", plain, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots})
	if err != nil {
		t.Fatalf("that port does not speak TLS, so the test shows nothing: %v", err)
	}
	direct.Close()
}

// TestRedisCluster: a cluster of one node that has all slots.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	_, bus, _ := net.SplitHostPort(freeAddr(t))
	store := startRedis(t, "--requirepass", storePassword, "--cluster-enabled", "yes", "--cluster-port", bus)
	c := store.client(t, redis.Options{Password: storePassword})
	if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster is there", func() bool {
		info, err := c.ClusterInfo(t.Context()).Result()
		return err == nil && strings.Contains(info, "cluster_state:ok")
	})
	countsIn(t, "redis://:{env.REDIS_PASSWORD}@"+store.addr+"?cluster=true", "")
	if calls := commands(t, c); calls["cluster|slots"]+calls["cluster|shards"] == 0 || calls["evalsha"] < 3 {
		t.Errorf("the edge's commands were %v", calls)
	}
}

// TestRedisSentinel: the master is found by asking a sentinel, and after a failover the new one is.
func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	master := startRedis(t, "--requirepass", storePassword, "--masterauth", storePassword)
	host, port, _ := net.SplitHostPort(master.addr)
	replica := startRedis(t, "--requirepass", storePassword, "--masterauth", storePassword, "--replicaof", host+" "+port,
		"--repl-diskless-sync-delay", "0")
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	write(t, config, fmt.Sprintf("sentinel monitor limits %s %s 1\nsentinel auth-pass limits %s\nsentinel down-after-milliseconds limits 1000\nsentinel failover-timeout limits 5000\nrequirepass %s\n",
		host, port, storePassword, storePassword))
	sentinel := startSentinel(t, config)

	at := map[string]*redis.Client{
		master.addr:  master.client(t, redis.Options{Password: storePassword}),
		replica.addr: replica.client(t, redis.Options{Password: storePassword}),
	}
	eventually(t, "the replica is connected", func() bool {
		info, err := at[replica.addr].Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	watcher := redis.NewSentinelClient(&redis.Options{Addr: sentinel.addr, Password: storePassword})
	t.Cleanup(func() { watcher.Close() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sentinel says\n%s", sentinel.log.tail())
		}
	})
	eventually(t, "the sentinel knows the replica", func() bool {
		replicas, err := watcher.Replicas(t.Context(), "limits").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["flags"] == "slave"
	})
	e := countsIn(t, "redis://:{env.REDIS_PASSWORD}@"+sentinel.addr+"?master_name=limits&sentinel_password={env.REDIS_PASSWORD}", "")
	if calls := commands(t, at[master.addr]); calls["evalsha"] < 3 {
		t.Errorf("the edge's commands at the master were %v", calls)
	}

	master.stop(t)
	eventually(t, "the edge counts at the new master", func() bool {
		ownRows(t, "ada", e.get(t, "ada", "/v0/pipes/live_events.json")) // whoever counts
		return commands(t, at[replica.addr])["evalsha"] >= 3
	})
	eventually(t, "the store is back", func() bool {
		return e.metric(t, "caddy_tinybird_shared_limit_up", fmt.Sprintf("store=%q", sentinel.addr)) == 1
	})
}

// startSentinel starts a sentinel with a config, which it writes to.
func startSentinel(t *testing.T, config string) *redisServer {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	r := &redisServer{addr: addr, dir: t.TempDir(), args: []string{config, "--sentinel", "--bind", "127.0.0.1", "--port", port}}
	r.start(t)
	t.Cleanup(func() { r.stop(t) })
	return r
}

// commands are how often each command was called.
func commands(t *testing.T, c *redis.Client) map[string]int {
	t.Helper()
	stats, err := c.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	calls := make(map[string]int)
	for line := range strings.Lines(stats) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		n := 0
		if _, err := fmt.Sscanf(rest, "%d,", &n); ok && err == nil {
			calls[name] = n
		}
	}
	return calls
}

// accessRule is the command of the documentation that makes a user for edges.
func accessRule(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(read(t, filepath.Join(module, "docs", "limits-redis.md"))) {
		if strings.HasPrefix(line, "ACL SETUSER ") {
			return line
		}
	}
	t.Fatal("docs/limits-redis.md has no ACL SETUSER any more")
	return ""
}

// rules are the arguments of a command.
func rules(command string) []any {
	var args []any
	for arg := range strings.FieldsSeq(command) {
		args = append(args, arg)
	}
	return args
}
