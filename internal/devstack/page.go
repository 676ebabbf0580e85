package devstack

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
)

const pageStyle = `
:root { color-scheme: light dark; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; color: CanvasText; background: Canvas; }
main { max-width: 24rem; margin: 10vh auto; padding: 0 1rem; }
button { display: block; width: 100%; min-height: 3rem; margin: 0.75rem 0; padding: 0.5rem 1rem; font: inherit; text-align: start; cursor: pointer; }
button:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
`

const pageHead = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{template "title"}}</title>
<style>` + pageStyle + `</style>
</head>
<body>
<main>
<h1>{{template "title"}}</h1>
`

const pageFoot = `
<p>This is a stand-in for Clerk. Anybody on this machine can be anybody.</p>
</main>
</body>
</html>
`

var signInTemplate = template.Must(template.New("sign-in").Parse(`{{define "title"}}Sign in{{end}}` + pageHead +
	`<form method="post" action="sign-in">
<input type="hidden" name="redirect_url" value="{{.Back}}">
<input type="hidden" name="{{.BrowserName}}" value="{{.Browser}}">
{{range .Users}}<button type="submit" id="sign-in-{{.Key}}" name="user" value="{{.Key}}">{{.Name}}</button>
{{end}}</form>` + pageFoot))

var userTemplate = template.Must(template.New("user").Parse(`{{define "title"}}Your account{{end}}` + pageHead +
	`<p>Signed in as <strong id="user">{{.User.Name}}</strong>{{with .User.Organization}}, in {{.Name}}{{end}}.</p>
<form method="post" action="{{.SignOut}}">
<button type="submit" id="sign-out">Sign out</button>
</form>` + pageFoot))

func (i *Issuer) page(t *template.Template, data any) answer {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return clerkError(http.StatusInternalServerError, "internal_clerk_error", "The page could not be made.")
	}
	return answer{status: http.StatusOK, body: b.Bytes(), header: http.Header{
		"Content-Type":            {"text/html; charset=utf-8"},
		"Content-Security-Policy": {i.pagePolicy()},
		"Cache-Control":           {"no-store"},
		"X-Content-Type-Options":  {"nosniff"},
	}}
}

// pagePolicy lets a page have its own style and nothing else. A form may lead to the sites and to the Frontend API,
// because Chrome holds every redirect after it against form-action.
func (i *Issuer) pagePolicy() string {
	sum := sha256.Sum256([]byte(pageStyle))
	forms := append([]string{"'self'"}, i.siteOrigins()...)
	if u, ok := parseHTTP(i.URL()); ok {
		forms = append(forms, originOf(u))
	}
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; " +
		"form-action " + strings.Join(forms, " ") + "; base-uri 'none'; frame-ancestors 'none'"
}
