package tinybird

// DefaultUpstream is the API of the region whose signing keys may not say where they belong.
const DefaultUpstream = "https://api.tinybird.co"

// regions maps the `host` of a static token to the API of its region
// (https://www.tinybird.co/docs/api-reference, "Regions and endpoints", and Tinybird's dashboard source).
var regions = map[string]string{
	"eu_shared":                   DefaultUpstream,
	"gcp-europe-west3":            DefaultUpstream,
	"gcp-europe-west2":            "https://api.europe-west2.gcp.tinybird.co",
	"us_east":                     "https://api.us-east.tinybird.co",
	"gcp-us-east4":                "https://api.us-east.tinybird.co",
	"gcp-northamerica-northeast2": "https://api.northamerica-northeast2.gcp.tinybird.co",
	"aws-eu-central-1":            "https://api.eu-central-1.aws.tinybird.co",
	"aws-eu-west-1":               "https://api.eu-west-1.aws.tinybird.co",
	"us-east-aws":                 "https://api.us-east.aws.tinybird.co",
	"aws-us-east-1":               "https://api.us-east.aws.tinybird.co",
	"aws-us-west-2":               "https://api.us-west-2.aws.tinybird.co",
	"local":                       "http://localhost:7181",
}

// RegionURL returns the base URL of the region that a signing key names. A region it does not know is not
// guessed at: the key would be tried on somebody else's host.
func RegionURL(host string) (string, bool) {
	u, ok := regions[host]
	return u, ok
}

// validHostKey bounds what a signing key's `host` may be, since errors quote it.
func validHostKey(host string) bool {
	if host == "" || len(host) > 64 {
		return false
	}
	for i := range len(host) {
		c := host[i]
		if !digit(c) && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
