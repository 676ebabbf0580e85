package devstack

import "net/http"

// Where Tinybird's errors point to.
const (
	docAuth   = "https://docs.tinybird.co/api-reference/overview#authentication"
	docPipe   = "https://docs.tinybird.co/api-reference/pipe-api.html"
	docQuery  = "https://docs.tinybird.co/api-reference/query-api.html"
	docLimits = "https://docs.tinybird.co/support/limits"
)

// refusal is Tinybird's error envelope: {"error": text, "documentation": link}.
type refusal struct {
	status int
	text   string
	doc    string
	header map[string]string
}

func (f *refusal) into(out *answer) {
	out.status = f.status
	out.header.Set("Content-Type", "application/json; charset=UTF-8")
	if f.status == http.StatusMethodNotAllowed {
		out.header.Set("Allow", "GET, POST")
	}
	for k, v := range f.header {
		out.header.Set(k, v)
	}
	doc := f.doc
	if doc == "" {
		doc = docQuery
	}
	body, err := marshal(struct {
		Error         string `json:"error"`
		Documentation string `json:"documentation"`
	}{f.text, doc})
	if err != nil { // strings always marshal
		return
	}
	out.body = body
}
