package clerk

import "github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"

// deviation is our own answer where it is not the SDK's, and why. Code is what the client is told; "" is an
// accepted token; refusedAtLoad is a configuration that is not accepted.
type deviation struct {
	code  apierr.Code
	why   string
	user  string // who is signed in
	steps bool   // it has steps, in which less is fetched than by the SDK
}

const refusedAtLoad apierr.Code = "(refused at load time)"

const (
	whyAudience  = "with audiences configured, a token has to name one of them"
	whyConfig    = "a configuration that cannot work is refused at load time"
	whyCrit      = "RFC 7515, 4.1.11: an unknown crit means that the token cannot be understood"
	whyCookies   = "a handshake sets Clerk's own cookies and no others, and the session is in one of them"
	whyCount     = "what is no number counts as enough redirects, or a planted cookie would let a browser go round for ever"
	whyDates     = "a date beyond the year 9999 is none"
	whyFetch     = "unknown key ids are remembered, and keys are fetched on demand at most every 10 s"
	whyIssuer    = "iss is always compared, and exactly"
	whyKid       = "a kid is a name: the SDK crashes over those of properties that JavaScript objects inherit"
	whyLimits    = "tokens are limited in size"
	whyNoKeys    = "keys that cannot be had are 503, not a signed-out user"
	whyNonce     = "a nonce that Clerk does not know says nothing about the session"
	whyNoSecret  = "verifying needs no secret key, and a header token no publishable key"
	whyOutside   = "the SDK crashes"
	whyQuery     = "in production a handshake comes in a cookie: anybody can make a link"
	whySatellite = "people are sent back to the satellites that are listed, and nowhere else"
	whyTemplate  = "a token without sid is one from a JWT template, which outlives its session"
	whyTwice     = "a claim that is named twice means two things to two readers"
	whyWeak      = "RSA keys under 2048 bits are not used"
)

var deviations = map[string]deviation{
	"c-json-null":                          {code: apierr.TokenInvalid, why: whyOutside},
	"c-jwks-500":                           {code: apierr.KeysUnavailable, why: whyNoKeys},
	"c-jwks-down":                          {code: apierr.KeysUnavailable, why: whyNoKeys},
	"cfg-bad-pk":                           {code: refusedAtLoad, why: whyConfig},
	"cfg-no-pk":                            {user: "user_2abcDEF", why: whyNoSecret},
	"cfg-no-secret-pem":                    {user: "user_2abcDEF", why: whyNoSecret},
	"cfg-pk-nodollar":                      {code: refusedAtLoad, why: whyConfig},
	"cfg-pk-two-dollars":                   {code: refusedAtLoad, why: whyConfig},
	"d-redirect-url-param-invalid":         {code: apierr.TokenMissing, why: whySatellite},
	"h-iss-foreign":                        {code: apierr.TokenWrongIssuer, why: whyIssuer},
	"h-jwks-401":                           {code: apierr.KeysUnavailable, why: whyNoKeys},
	"h-jwks-500":                           {code: apierr.KeysUnavailable, why: whyNoKeys},
	"h-jwks-down":                          {code: apierr.KeysUnavailable, why: whyNoKeys},
	"h-sid-missing":                        {code: apierr.TokenWrongType, why: whyTemplate},
	"hr-nonce-unknown-valid-session":       {user: "user_2abcDEF", why: whyNonce},
	"hr-prod-query":                        {code: apierr.TokenMissing, why: whyQuery},
	"hr-prod-session-prefix":               {user: "user_2abcDEF", why: whyCookies},
	"jwks-down":                            {code: apierr.KeysUnavailable, why: whyNoKeys},
	"jwks-http-401":                        {code: apierr.KeysUnavailable, why: whyNoKeys},
	"jwks-unknown-kid-refetches-each-time": {steps: true, why: whyFetch},
	"l-count-abc":                          {code: apierr.TokenMissing, why: whyCount},
	"st-dev-no-signin":                     {code: refusedAtLoad, why: whyConfig},
	"st-no-domain":                         {code: refusedAtLoad, why: whyConfig},
	"vt-aud-none-configured":               {code: apierr.TokenInvalid, why: whyAudience},
	"vt-aud-number":                        {code: apierr.TokenInvalid, why: whyAudience},
	"vt-crit":                              {code: apierr.TokenInvalid, why: whyCrit},
	"vt-duplicate-keys":                    {code: apierr.TokenInvalid, why: whyTwice},
	"vt-exp-huge":                          {code: apierr.TokenWrongIssuer, why: whyIssuer + "; and " + whyDates},
	"vt-iss-foreign":                       {code: apierr.TokenWrongIssuer, why: whyIssuer},
	"vt-iss-option-list":                   {why: whyIssuer + ", with each one that is configured"},
	"vt-iss-option-match":                  {why: whyIssuer},
	"vt-iss-option-mismatch":               {code: apierr.TokenWrongIssuer, why: whyIssuer},
	"vt-kid-constructor":                   {code: apierr.TokenInvalid, why: whyKid},
	"vt-kid-proto":                         {code: apierr.TokenInvalid, why: whyKid},
	"vt-nbf-huge":                          {code: apierr.TokenWrongIssuer, why: whyIssuer + "; and " + whyDates},
	"vt-oversize-1m":                       {code: apierr.TokenInvalid, why: whyLimits},
	"vt-weak-1024":                         {code: apierr.KeysUnavailable, why: whyWeak},
}
