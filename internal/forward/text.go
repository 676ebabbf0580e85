package forward

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/secret"
)

const (
	// maxErrorBody is the largest error body, in bytes, of which the text is used.
	maxErrorBody = 8 << 10
	// errorBodyTimeout is how long the client waits for the text of an error whose status is known.
	errorBodyTimeout = 2 * time.Second
)

var errSecret = errors.New("(the reason is left out: it holds something like a credential)")

// errorText returns the member "error" of Tinybird's error body, or "" if there is none that can be used. It
// never returns a text that holds something like a credential: Tinybird quotes a token it does not like.
func (x *exchange) errorText(resp *http.Response) string {
	giveUpAfter(resp, min(x.transport.bytes, errorBodyTimeout))
	body, err := readErrorBody(resp)
	if err != nil || len(body) > maxErrorBody || !utf8.Valid(body) {
		return ""
	}
	var envelope struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &envelope) != nil || secret.Holds(envelope.Error, x.token) {
		return ""
	}
	return strings.TrimSpace(envelope.Error)
}

// readErrorBody reads up to one byte more than is used. The client's Accept-Encoding went up, so the text may be
// packed; gzip is the one packing that every client accepts.
func readErrorBody(resp *http.Response) ([]byte, error) {
	r := io.LimitReader(resp.Body, maxErrorBody+1)
	if strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("unpack the error: %w", err)
		}
		r = io.LimitReader(z, maxErrorBody+1)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read the error: %w", err)
	}
	return body, nil
}

// dropSecrets removes the fields of an answer's header that echo the token.
func dropSecrets(h http.Header, token string) {
	for name, values := range h {
		if slices.ContainsFunc(values, func(v string) bool { return secret.Holds(v, token) }) {
			delete(h, name)
		}
	}
}

// withoutSecrets returns err, or another error if its text holds a secret: net/http quotes lines of an answer
// that is no HTTP, and such a line may be an echo of the request.
func withoutSecrets(err error, token string) error {
	if secret.Holds(err.Error(), token) {
		return errSecret
	}
	return err
}
