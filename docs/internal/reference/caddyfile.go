package reference

// head is the page before what is generated.
const head = `# Reference: every setting in JSON

For whoever writes Caddy's JSON config, or wants every setting in one list. The Caddyfile, with examples, is in [config.md](config.md).

This page is generated from the comments in the code by ` + "`make reference`" + `; change it there. Caddy's own site shows the same comments. A value of the
type *duration* is a text such as ` + "`\"90s\"`" + `, or a number of nanoseconds. Sizes are in bytes. ` + "`caddy adapt --pretty`" + ` shows the JSON of a Caddyfile.

`

// words are how fields are written in a Caddyfile where the name alone does not say it. Of the others, the word is that of the JSON.
var words = map[string]string{
	"Handler.clerk":            "`clerk`",
	"Handler.rate_limit_redis": "`rate_limit redis <url>`",
	"Handler.fixed_params":     "`fixed_param`",
	"Handler.pipes":            "`pipe`",

	"RateLimit.rps":   "`rate_limit <rps>`",
	"RateLimit.burst": "`rate_limit <rps> burst <n>`",

	"FixedParam.name":  "`fixed_param <name> ...`, `stamp <field> ...`",
	"FixedParam.value": "`fixed_param ... <value>`",
	"FixedParam.type":  "`fixed_param ... string|number|boolean`",

	"Pipe.names":        "`pipe <name>...`",
	"Pipe.fixed_params": "`fixed_param`",

	"Requirement.kind":   "`require <kind> ...`",
	"Requirement.values": "`require ... <value>...`",

	"Events.datasources": "`events <datasource>...`",

	"SharedLimit.url":        "`rate_limit redis <url>`",
	"SharedLimit.client_key": "`client_certificate <certificate> <key>`",

	"Clerk.issuers": "`issuer`",

	"TokenSource.source": "`token_from header|cookie|query`",
	"TokenSource.name":   "`token_from query <name>`",

	"ClerkProvider.sign_in_url": "`on_unauthenticated redirect <url>`",

	"Satellite.domain":    "`satellite <domain>`",
	"Satellite.auto_sync": "`satellite <domain> auto_sync`",

	"OrganizationSync.organizations":     "`organization_sync organization <pattern>...`",
	"OrganizationSync.personal_accounts": "`organization_sync personal <pattern>...`",
}

func caddyfileOf(config, name string) string {
	if word, ok := words[config+"."+name]; ok {
		return word
	}
	return "`" + name + "`"
}
