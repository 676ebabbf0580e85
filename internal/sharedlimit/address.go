package sharedlimit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Address is what an operator's URL says.
type Address struct {
	// Redis has the addresses, the credentials, the database and, for rediss, an empty TLS config.
	Redis *redis.UniversalOptions
	// Host is the first host and port, which are no secret.
	Host string
	// Literal tells that a password stands in the text itself and not in a placeholder.
	Literal bool
}

// The errors of ParseURL hold nothing of the URL: a piece of a password could stand anywhere in one that is not well formed.
var (
	errURL = errors.New("the address is no URL of a Redis; write redis://host:6379, or rediss://user:password@host:6379 for TLS. " +
		"Characters such as / ? # @ in a password have to be percent-encoded, or the password written as {env.NAME} or {file.PATH}")
	errPlaceholder = errors.New("the address may hold no other placeholders than {env.NAME} and {file.PATH}")
	errHost        = errors.New("the address needs a host, and a port is a number from 1 to 65535; write redis://host:6379")
	errDatabase    = errors.New("after the host comes nothing but the number of a database, as in redis://host:6379/2")
	errOption      = errors.New("the address has an option that is not known, is empty or is given twice; the ones known are " +
		"cluster=true, master_name, sentinel_username, sentinel_password, and addr, which may be repeated")
	errSeveral  = errors.New("several addresses are a cluster or sentinels; add cluster=true or master_name=<name> to the address")
	errBoth     = errors.New("cluster=true and master_name exclude each other; remove one of them")
	errSentinel = errors.New("sentinel_username and sentinel_password need master_name")
	errCluster  = errors.New("a cluster has no other database than 0; remove the number from the address")
)

var (
	anyPlaceholder   = regexp.MustCompile(`\{[^{}]*\}`)
	knownPlaceholder = regexp.MustCompile(`^\{(env\.[A-Za-z_][A-Za-z0-9_]*|file\.[^{}]+)\}$`)
	hostName         = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	mark             = regexp.MustCompile(marker + `\d{2}`)
)

// marker stands for a placeholder while a URL is parsed. Digits may stand in every part of one.
const marker = "31415926535897932384"

// ParseURL reads redis://[user[:password]@]host[:port][/database][?options], or rediss:// for TLS. With the option
// master_name=<name> the hosts are sentinels, with cluster=true they are nodes of a cluster, and addr=<host>:<port> names further ones.
//
// The text may hold placeholders, which lookUp resolves; with nil the text is only checked as far as they let it. A whole URL may come
// out of a placeholder. What one stands for is taken as it is, wherever it stands, so that a password needs no encoding.
func ParseURL(text string, lookUp func(placeholder string) (string, error)) (*Address, error) {
	if !knownPlaceholder.MatchString(text) {
		p := &addressParser{lookUp: lookUp}
		return p.parse(text)
	}
	if lookUp == nil {
		return &Address{Redis: new(redis.UniversalOptions)}, nil
	}
	whole, err := lookUp(text)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(whole, "{}") {
		return nil, errURL
	}
	a, err := new(addressParser).parse(strings.TrimSpace(whole))
	if err != nil {
		return nil, err
	}
	a.Literal = false
	return a, nil
}

// addressParser parses a URL in which digits stand for placeholders, and then puts in what they stand for.
type addressParser struct {
	lookUp func(placeholder string) (string, error)
	found  []string
	err    error // the first one of lookUp
}

func (p *addressParser) parse(text string) (*Address, error) {
	u, err := p.split(text)
	if err != nil {
		return nil, err
	}
	a := &Address{Redis: new(redis.UniversalOptions)}
	if u.Scheme == "rediss" {
		a.Redis.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		a.Redis.Username, a.Redis.Password = p.expand(u.User.Username()), p.secret(password, a)
	}
	if database := strings.TrimPrefix(u.Path, "/"); database != "" {
		if a.Redis.DB, err = strconv.Atoi(p.expand(database)); err != nil || a.Redis.DB < 0 {
			err = errDatabase
		}
	}
	if err == nil {
		err = p.options(u, a)
	}
	if p.err != nil { // what could not be looked up is the cause of the rest
		err = p.err
	}
	if err != nil {
		return nil, err
	}
	a.Host = a.Redis.Addrs[0]
	return a, nil
}

// split parses the text with digits in the place of placeholders.
func (p *addressParser) split(text string) (*url.URL, error) {
	if strings.Contains(text, marker) {
		return nil, errURL
	}
	known := true
	marked := anyPlaceholder.ReplaceAllStringFunc(text, func(placeholder string) string {
		known = known && knownPlaceholder.MatchString(placeholder) && len(p.found) < 100
		p.found = append(p.found, placeholder)
		return fmt.Sprintf("%s%02d", marker, len(p.found)-1)
	})
	if !known {
		return nil, errPlaceholder
	}
	u, err := url.Parse(marked)
	if err != nil || (u.Scheme != "redis" && u.Scheme != "rediss") || u.Opaque != "" || u.Fragment != "" {
		return nil, errURL
	}
	return u, nil
}

// options reads what says which hosts there are, and what they are.
func (p *addressParser) options(u *url.URL, a *Address) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errURL
	}
	o := a.Redis
	hosts := []string{u.Host}
	for name, values := range query {
		if slices.Contains(values, "") || len(values) != 1 && name != "addr" {
			return errOption
		}
		switch name {
		case "addr":
			hosts = append(hosts, values...)
		case "cluster":
			if o.IsClusterMode = values[0] == "true"; !o.IsClusterMode {
				return errOption
			}
		case "master_name":
			o.MasterName = p.expand(values[0])
		case "sentinel_username":
			o.SentinelUsername = p.expand(values[0])
		case "sentinel_password":
			o.SentinelPassword = p.secret(values[0], a)
		default:
			return errOption
		}
	}
	for _, host := range hosts {
		if host, err = p.host(host, o.MasterName != ""); err != nil {
			return err
		}
		o.Addrs = append(o.Addrs, host)
	}
	return checkKind(o)
}

// checkKind holds the rules between the options.
func checkKind(o *redis.UniversalOptions) error {
	switch sentinel := o.MasterName != ""; {
	case sentinel && o.IsClusterMode:
		return errBoth
	case len(o.Addrs) > 1 && !sentinel && !o.IsClusterMode:
		return errSeveral
	case !sentinel && (o.SentinelUsername != "" || o.SentinelPassword != ""):
		return errSentinel
	case o.IsClusterMode && o.DB != 0:
		return errCluster
	}
	return nil
}

// host returns a host with its port.
func (p *addressParser) host(text string, sentinel bool) (string, error) {
	u := url.URL{Host: p.expand(text)}
	name, port := u.Hostname(), u.Port()
	if port == "" {
		port = "6379"
		if sentinel {
			port = "26379"
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || !hostName.MatchString(name) && !isAddress(name) {
		return "", errHost
	}
	return net.JoinHostPort(name, port), nil
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// expand puts in what the placeholders of a part stand for.
func (p *addressParser) expand(part string) string {
	return mark.ReplaceAllStringFunc(part, func(m string) string {
		if p.lookUp == nil {
			return "1" // will do as a host, as a port and as a database
		}
		n, err := strconv.Atoi(m[len(marker):])
		if err != nil || n >= len(p.found) {
			p.err = errURL
			return ""
		}
		value, err := p.lookUp(p.found[n])
		if err != nil && p.err == nil {
			p.err = err
		}
		return value
	})
}

// secret is expand for a password.
func (p *addressParser) secret(part string, a *Address) string {
	if part != "" && !mark.MatchString(part) {
		a.Literal = true
	}
	return p.expand(part)
}
