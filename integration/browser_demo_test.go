//go:build integration

package integration

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// startDemo runs the demo and returns the addresses of its page and of its plain site.
func startDemo(t *testing.T) (page, site string) {
	t.Helper()
	p := &process{exited: make(chan struct{})}
	p.cmd = command(context.WithoutCancel(t.Context()), t.TempDir(), nil, "demo", "--listen", freeAddr(t))
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	killInTime(t, p.cmd)
	t.Cleanup(func() { p.stop(t) })
	addresses := regexp.MustCompile(`(?m)^  (?:Open|And) +(http://\S+)$`)
	var found [][]string
	eventually(t, "the demo says what to open", func() bool {
		found = addresses.FindAllStringSubmatch(p.log.String(), -1)
		return len(found) == 2
	})
	return found[0][1], found[1][1]
}

// TestDemoInABrowser: the demo's page and its plain site show what they are made of, on a desk and on a phone, and one signs in to
// both of them at once.
func TestDemoInABrowser(t *testing.T) {
	t.Parallel()
	page, site := startDemo(t)
	b := startBrowser(t)
	ada, _ := devstack.UserByKey("ada")

	b.begin(t, instruction{"script": false})
	b.open(t, site+"/minute.html")
	if v := b.click(t, "#sign-in-ada"); v != (visit{site + "/minute.html", http.StatusOK}) {
		t.Fatalf("without any script one comes to %v", v)
	}

	b.begin(t, instruction{})
	b.open(t, page)
	b.click(t, "#site-link")
	if v := b.click(t, "#sign-in-ada"); v != (visit{site + "/", http.StatusOK}) {
		t.Fatalf("the page's link leads to %v", v)
	}
	if user := b.text(t, "#user"); user != ada.ID {
		t.Errorf("the plain site knows %q", user)
	}
	b.isWhole(t)
	b.open(t, site+"/minute.html")
	b.isWhole(t)
	b.seen(t)
	b.open(t, page)
	if people := b.text(t, "#people [aria-pressed=true]"); !strings.Contains(people, "Ada") {
		t.Errorf("the page knows %q", people)
	}
	b.showsDecisions(t)
	b.keepsToItsServer(t)
	b.isWhole(t)
	if _, messages := b.seen(t); len(messages) > 0 {
		t.Errorf("the page complains: %q", messages)
	}
	b.open(t, site+"/sign-out")
	if v := b.click(t, "#sign-out"); !strings.Contains(v.URL, "/sign-in?") {
		t.Errorf("after signing out one is at %v", v)
	}
}

// showsDecisions holds that the page tells of a request what the edge made of it: the attempt to set another organization's id.
func (b *browser) showsDecisions(t *testing.T) {
	t.Helper()
	const first = "#live-rows tr:first-child "
	b.await(t, "#live-state", "^Live$")
	b.do(t, instruction{"do": "press", "selector": "#attempts button"}, nil)
	b.await(t, first+".dropped", "^dropped organization_id$")
	for part, want := range map[string]string{
		"th": "^Ada Acme$", ".fixed": "^fixed organization_id$", ".taken": "^taken limit$", ".status": "^200$",
		".steps": `(?s)^edge [\d.,]+ · Tinybird [\d.,]+.*identify [\d.]+ · authorize [\d.]+ · limit [\d.]+ · mint [\d.]+ · build [\d.]+$`,
	} {
		if got := b.text(t, first+part); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("the live view says %q in %s, want %s", got, part, want)
		}
	}
	b.do(t, instruction{"do": "press", "selector": "#live-pause"}, nil)
	b.do(t, instruction{"do": "press", "selector": "#attempts button:nth-child(4)"}, nil) // with a token
	b.await(t, "#live-pause", `^Go on \(1 new\)$`)
	if dropped := b.text(t, first+".dropped"); dropped != "dropped organization_id" {
		t.Errorf("it goes on while it is held: %q", dropped)
	}
	b.do(t, instruction{"do": "press", "selector": "#live-pause"}, nil)
	b.await(t, first+".dropped", "^dropped token$")
}

// keepsToItsServer holds that the form sends nothing, least of all a bearer token, to another server, and that the page says so when its
// own is gone.
func (b *browser) keepsToItsServer(t *testing.T) {
	t.Helper()
	for _, path := range []string{`//example.com/v0`, `/\\example.com/v0`, `/\t/example.com/v0`, `https://example.com/v0`} {
		var asked int
		b.evaluate(t, `(() => {
			const form = document.getElementById("request"), real = window.fetch;
			let asked = 0;
			window.fetch = () => { asked++; return Promise.reject(new Error("asked")); };
			form.elements.auth.value = "none";
			form.elements.path.value = "`+path+`";
			form.elements.path.dispatchEvent(new Event("input"));
			form.requestSubmit();
			return new Promise((done) => setTimeout(() => { window.fetch = real; done(asked); }));
		})()`, &asked)
		if asked > 0 {
			t.Errorf("the form asks %s", path)
		}
	}
	b.evaluate(t, `(() => { window.asked = window.fetch; window.fetch = () => Promise.reject(new Error("gone")); return true; })()`, new(bool))
	b.do(t, instruction{"do": "press", "selector": "#people button:nth-child(2)"}, nil)
	b.await(t, "#trouble", `\(gone\)`)
	b.evaluate(t, `(() => { window.fetch = window.asked; return true; })()`, new(bool))
	b.do(t, instruction{"do": "press", "selector": "#people button:first-child"}, nil)
	b.evaluate(t, `new Promise((done) => {
		const look = () => (document.getElementById("trouble").hidden ? done(true) : setTimeout(look, 50));
		look();
	})`, new(bool))
}

// isWhole holds that all pictures of the page are there, and that it is no wider than the window.
func (b *browser) isWhole(t *testing.T) {
	t.Helper()
	for _, width := range []int{1280, 390} {
		b.resize(t, width, 800)
		var got struct {
			Missing []string `json:"missing"`
			Width   int      `json:"width"`
			URL     string   `json:"url"`
		}
		b.evaluate(t, `Promise.all([...document.images].map((image) => image.decode().then(() => "", () => image.currentSrc)))
			.then((list) => ({ missing: list.filter(Boolean), width: document.documentElement.scrollWidth, url: location.href }))`, &got)
		if len(got.Missing) > 0 || got.Width > width {
			t.Errorf("%s at %d pixels: %d wide, without %v", got.URL, width, got.Width, got.Missing)
		}
	}
}
