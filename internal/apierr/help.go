package apierr

import "net/http"

// errorsPage has a section for each code: what it comes from, how to see that, and what to do.
const errorsPage = "https://github.com/seed-32cb3e43/caddy-tinybird/blob/main/docs/errors.md"

// Help is the address of the code's section in the documentation. It is for the operator's logs and never for a client, to
// which the sentence says what it can do itself.
func (c Code) Help() string { return errorsPage + "#" + string(c) }

// NeedsHelp reports whether an operator may have to look into a refusal: one that an application with a mistake in it, or a
// mistake in the config, causes for everybody.
func (e *Error) NeedsHelp() bool {
	return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Code == EventsIncomplete ||
		e.Status >= http.StatusInternalServerError
}
