package clerk

import (
	"net/url"
	"strings"
)

// accountsHost is the host of the account portal that belongs to a Frontend API, "" if there is none.
func accountsHost(frontendAPI string) string {
	for _, clerk := range []string{"clerk.accountsstage.", "clerk.accounts.", "clerk."} {
		if before, after, ok := strings.Cut(frontendAPI, clerk); ok && (before == "" || strings.HasSuffix(before, ".")) {
			if clerk == "clerk.accountsstage." {
				return before + "accountsstage." + after
			}
			return before + "accounts." + after
		}
	}
	return ""
}

// SignInURL is where people sign in: a page of the instance's account portal. It is empty if the instance's host does
// not tell where that is.
func (i Instance) SignInURL() string {
	host := accountsHost(i.FrontendAPI)
	if host == "" {
		return ""
	}
	return "https://" + host + "/sign-in"
}

// knownReferrer reports whether a page is one of Clerk's own for this instance: those send people back who have just
// signed in. Any other host that is called accounts is not.
func (i Instance) knownReferrer(referrer string) bool {
	u, err := url.Parse(referrer)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	api, _, _ := strings.Cut(i.FrontendAPI, ":")
	if host == api {
		return true
	}
	if accounts := accountsHost(i.FrontendAPI); accounts != "" && origin(u) == "https://"+accounts {
		return true
	}
	return i.Development && isDevelopmentPortal(host)
}

// isDevelopmentPortal knows the hosts of the account portals of development instances, old and new.
func isDevelopmentPortal(host string) bool {
	for _, suffix := range []string{".lcl.dev", ".lclstage.dev", ".lclclerk.com"} {
		if strings.HasPrefix(host, "accounts.") && strings.HasSuffix(host, suffix) {
			return true
		}
	}
	for _, suffix := range []string{".accounts.dev", ".accountsstage.dev", ".accounts.lclclerk.com"} {
		if strings.HasSuffix(host, suffix) && !strings.HasSuffix(host, ".clerk"+suffix) {
			return true
		}
	}
	return false
}
