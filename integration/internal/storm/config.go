package storm

import (
	"fmt"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

const appOrigin = "https://app.example.com"

const config = `{
	admin {$ADMIN}
	skip_install_trust
	auto_https off
	grace_period 10s
	storage file_system {$HOME}/storage
	servers {
		protocols h1 h2
	}
	clerk {
		publishable_key {env.CLERK_PUBLISHABLE_KEY}
		secret_key {env.CLERK_SECRET_KEY}
		api_url {env.ISSUER}
		issuer {env.ISSUER}
		authorized_parties ` + appOrigin + `
		token_from header cookie query access
	}
%[1]s
}
https://:{$PORT} {
	bind 127.0.0.1
	tls {$CERT} {$CERT_KEY}
	log
	tracing {
		span edge
	}
	header X-Generation %[2]d
	handle /app/* {
		clerk_auth {
			forward_identity
		}
		respond "{http.request.header.X-Clerk-Org-Id} {http.request.header.X-Clerk-User-Id} {clerk.org.id} {clerk.user.id}"
	}
	handle {
		tinybird {
			signing_key {env.TINYBIRD_SIGNING_KEY}
			upstream {env.UPSTREAM}
			rate_limit 100000
			rate_limit redis {env.REDIS_URL}
			token_endpoint /tinybird/token
			upstream_errors pass
			events analytics_events {
				append_token {env.TINYBIRD_APPEND_TOKEN}
				stamp organization_id {clerk.org.id}
			}
			fixed_param organization_id {clerk.org.id}
			pipe rows
			pipe mine {
				fixed_param user_id {clerk.user.id}
			}
			pipe shared {
				cache 2s
			}
			pipe scarce {
				rate_limit 2 burst 4
			}
			pipe staff {
				require role org:admin
			}
			pipe narrow {
				formats json
			}
			transport http {
				response_header_timeout %[3]s
				read_timeout %[3]s
			}
		}
	}
}
`

// generation is the config of that number: the same but for the number, which every answer shows.
func (st *storm) generation(n int) string { return fmt.Sprintf(config, st.Config, n, st.Timeout) }

// rejected are configs that fail: while they are read, prepared and started.
func (st *storm) rejected() []string {
	good := st.generation(-1)
	return []string{
		strings.Replace(good, "pipe rows", "pipe rows mine", 1),
		strings.Replace(good, "{env.TINYBIRD_SIGNING_KEY}", "{env.NOT_SET}", 1),
		strings.Replace(good, "{env.UPSTREAM}", "{env.TINYBIRD_SIGNING_KEY}", 1),
		good + "\nhttp://" + strings.TrimPrefix(st.stack.APIURL, "http://") + " {\n respond taken\n}\n",
	}
}

// pipes answer with the values that they were asked with: whose rows these are, and which request they were for.
func pipes() []devstack.Pipe {
	org := devstack.Param{Name: "organization_id", Type: devstack.TypeString, Required: true}
	user := devstack.Param{Name: "user_id", Type: devstack.TypeString, Required: true}
	attempt := devstack.Param{Name: "attempt", Type: devstack.TypeString, Default: "none"}
	page := devstack.Param{Name: "page", Type: devstack.TypeInt32, Default: "1"}
	size := devstack.Param{Name: "size", Type: devstack.TypeInt32, Default: "5"}
	params := map[string][]devstack.Param{
		"rows": {org, attempt, size}, "mine": {org, user, attempt, size}, "shared": {org, page, size},
		"scarce": {org, attempt, size}, "staff": {org, attempt, size}, "narrow": {org, attempt, size}, "unlisted": {org, attempt, size},
	}
	list := make([]devstack.Pipe, 0, len(params))
	for name, declared := range params {
		list = append(list, devstack.Pipe{Name: name, ID: "t_" + name, Params: declared, Run: echo})
	}
	return list
}

func echo(q devstack.Query) devstack.Result {
	res := devstack.Result{Columns: []devstack.Column{
		{Name: "name", Type: "String"}, {Name: "value", Type: "Float64"}, {Name: "labels", Type: "Map(String, String)"},
	}}
	for n := range min(q.Int("size"), 2000) {
		res.Rows = append(res.Rows, []any{"storm", float64(n), map[string]string{
			"org": q.String("organization_id"), "user": q.String("user_id"), "attempt": q.String("attempt"), "page": "page_" + q.String("page"),
		}})
	}
	return res
}
