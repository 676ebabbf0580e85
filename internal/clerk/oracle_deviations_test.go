package clerk

import "github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"

// deviation is our own answer where it is not the SDK's, and why. Code is what the client is told; "" is an
// accepted token; refusedAtLoad is a configuration that New does not accept.
type deviation struct {
	code apierr.Code
	why  string
}

const refusedAtLoad apierr.Code = "(refused at load time)"

const (
	whyAlgorithm = "only RS256 is accepted"
	whyAudience  = "with audiences configured, a token has to name one of them"
	whyConfig    = "a configuration that cannot work is refused at load time"
	whyCrit      = "RFC 7515, 4.1.11: an unknown crit means that the token cannot be understood"
	whyDates     = "a date beyond the year 9999 is none"
	whyIssuer    = "iss is always compared, and exactly"
	whyKid       = "a kid is a name: the SDK crashes over those of properties that JavaScript objects inherit"
	whyLimits    = "tokens are limited in size and depth"
	whyNoKeys    = "keys that cannot be had are 503, not a signed-out user"
	whyNoSecret  = "verifying needs no secret key, and a header token no publishable key"
	whyOutside   = "the SDK crashes"
	whyScope     = "where the two readings of a feature's place differ, nothing is granted"
	whyTemplate  = "a token without sid is one from a JWT template, which outlives its session"
	whyTwice     = "a claim that is named twice means two things to two readers"
	whyWeak      = "RSA keys under 2048 bits are not used"
)

var deviations = map[string]deviation{
	"c-iss-http":                 {apierr.TokenWrongIssuer, whyIssuer},
	"c-json-null":                {apierr.TokenInvalid, whyOutside},
	"c-jwks-500":                 {apierr.KeysUnavailable, whyNoKeys},
	"c-jwks-down":                {apierr.KeysUnavailable, whyNoKeys},
	"cfg-bad-pk":                 {refusedAtLoad, whyConfig},
	"cfg-no-pk":                  {"", whyNoSecret},
	"cfg-no-secret-pem":          {"", whyNoSecret},
	"cfg-pk-nodollar":            {refusedAtLoad, whyConfig},
	"cfg-pk-two-dollars":         {refusedAtLoad, whyConfig},
	"h-iss-foreign":              {apierr.TokenWrongIssuer, whyIssuer},
	"h-jwks-401":                 {apierr.KeysUnavailable, whyNoKeys},
	"h-jwks-500":                 {apierr.KeysUnavailable, whyNoKeys},
	"h-jwks-down":                {apierr.KeysUnavailable, whyNoKeys},
	"h-sid-missing":              {apierr.TokenWrongType, whyTemplate},
	"h-template-nocat":           {apierr.TokenWrongType, whyTemplate},
	"jwks-down":                  {apierr.KeysUnavailable, whyNoKeys},
	"jwks-http-401":              {apierr.KeysUnavailable, whyNoKeys},
	"jwks-use-enc":               {apierr.KeysUnavailable, whyNoKeys},
	"p-odd-scope":                {"", whyScope},
	"vt-aud-none-configured":     {apierr.TokenInvalid, whyAudience},
	"vt-aud-number":              {apierr.TokenInvalid, whyAudience},
	"vt-azp-empty-allowed-empty": {refusedAtLoad, whyConfig},
	"vt-crit":                    {apierr.TokenInvalid, whyCrit},
	"vt-duplicate-keys":          {apierr.TokenInvalid, whyTwice},
	"vt-exp-huge":                {apierr.TokenWrongIssuer, whyIssuer + "; and " + whyDates},
	"vt-iss-foreign":             {apierr.TokenWrongIssuer, whyIssuer},
	"vt-kid-constructor":         {apierr.TokenInvalid, whyKid},
	"vt-kid-proto":               {apierr.TokenInvalid, whyKid},
	"vt-nbf-huge":                {apierr.TokenWrongIssuer, whyIssuer + "; and " + whyDates},
	"vt-oversize-1m":             {apierr.TokenInvalid, whyLimits},
	"vt-payload-deep":            {apierr.TokenInvalid, whyLimits},
	"vt-rs512-jwks-alg512":       {apierr.TokenInvalid, whyAlgorithm},
	"vt-weak-1024":               {apierr.KeysUnavailable, whyWeak},
}
