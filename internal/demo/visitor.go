package demo

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// visitor opens pages of the plain site and of Clerk as a browser does. What it is told to do with cookies and redirects, it does.
type visitor struct {
	*browser

	site   string
	issuer *devstack.Issuer
}

// page is an answer, and the address that a browser shows for it.
type page struct {
	answer

	at string
}

func (p page) String() string {
	if to := p.header.Get("Location"); to != "" {
		return fmt.Sprintf("%d to %s", p.status, withoutQuery(to))
	}
	return p.answer.String()
}

func withoutQuery(address string) string {
	before, _, _ := strings.Cut(address, "?")
	return before
}

// maxRedirects is where browsers give up.
const maxRedirects = 20

// open loads a document and follows where it leads.
func (v *visitor) open(ctx context.Context, address string) (page, error) {
	p, err := v.load(ctx, http.MethodGet, address, "")
	return v.follow(ctx, p, err)
}

// submit sends a form and follows where that leads.
func (v *visitor) submit(ctx context.Context, address string, form url.Values) (page, error) {
	p, err := v.load(ctx, http.MethodPost, address, form.Encode())
	return v.follow(ctx, p, err)
}

func (v *visitor) follow(ctx context.Context, p page, err error) (page, error) {
	for range maxRedirects {
		to := p.header.Get("Location")
		if err != nil || to == "" {
			return p, err
		}
		base, parseErr := url.Parse(p.at)
		if parseErr != nil {
			return p, fmt.Errorf("follow a redirect: %w", parseErr)
		}
		next, parseErr := base.Parse(to)
		if parseErr != nil {
			return p, fmt.Errorf("follow a redirect: %w", parseErr)
		}
		p, err = v.load(ctx, http.MethodGet, next.String(), "")
	}
	return p, errors.New("it redirects without end")
}

// load asks for one document. It does not follow.
func (v *visitor) load(ctx context.Context, method, address, form string) (page, error) {
	header := http.Header{"Sec-Fetch-Dest": {"document"}, "Accept": {"text/html"}}
	if form != "" {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return v.request(ctx, method, address, form, header)
}

// fetch asks as a script does, or as a page for its pictures: nobody would see where a redirect leads.
func (v *visitor) fetch(ctx context.Context, path string, header http.Header) (page, error) {
	if header == nil {
		header = http.Header{}
	}
	header.Set("Sec-Fetch-Dest", "empty")
	return v.request(ctx, http.MethodGet, v.site+path, "", header)
}

func (v *visitor) request(ctx context.Context, method, address, body string, header http.Header) (page, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return page{at: address}, fmt.Errorf("%s %s: %w", method, address, err)
	}
	r.Header = header
	a, err := v.send(r, randomHex(16))
	return page{a, address}, err
}

var formAction = regexp.MustCompile(`<form [^>]*action="([^"]+)"`)

// press submits the only form of a page.
func (v *visitor) press(ctx context.Context, p page) (page, error) {
	action := formAction.FindSubmatch(p.body)
	if action == nil {
		return p, errors.New("the page has no form")
	}
	base, err := url.Parse(p.at)
	if err != nil {
		return p, fmt.Errorf("submit a form: %w", err)
	}
	to, err := base.Parse(html.UnescapeString(string(action[1])))
	if err != nil {
		return p, fmt.Errorf("submit a form: %w", err)
	}
	return v.submit(ctx, to.String(), nil)
}

// age replaces the session token in the cookies by one of the same session that has expired.
func (v *visitor) age(userKey string) error {
	site, err := url.Parse(v.site)
	if err != nil {
		return fmt.Errorf("age a token: %w", err)
	}
	names := []string{"__session", "__session_" + v.issuer.CookieSuffix()}
	claims := jwt.MapClaims{}
	for _, cookie := range v.client.Jar.Cookies(site) {
		if cookie.Name == names[0] || cookie.Name == names[1] {
			if _, _, err := jwt.NewParser().ParseUnverified(cookie.Value, claims); err != nil {
				return fmt.Errorf("read a session token: %w", err)
			}
		}
	}
	token, err := v.issuer.Token(userKey, devstack.AZP(v.site), devstack.Claim("sid", claims["sid"]), devstack.Lifetime(-time.Minute))
	if err != nil {
		return err
	}
	aged := make([]*http.Cookie, 0, len(names))
	for _, name := range names {
		aged = append(aged, &http.Cookie{Name: name, Value: token, Path: "/"})
	}
	v.client.Jar.SetCookies(site, aged)
	return nil
}
