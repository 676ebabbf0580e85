package tinybird

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// readBody reads the body of a POST request, at most limit bytes of it. An empty body is nil, whatever its
// type is said to be.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > limit {
		return nil, bodyTooLarge()
	}
	if r.ContentLength > 0 {
		// What is refused anyway is not read.
		if err := checkBodyType(r.Header); err != nil {
			return nil, err
		}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		// A limit of the site's own (request_body) ends in the same error.
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, bodyTooLarge()
		}
		return nil, apierr.New(http.StatusBadRequest, apierr.BadBody, "The request's body could not be read.").Wrap(err)
	}
	if len(raw) == 0 {
		return nil, nil
	}
	if err := checkBodyType(r.Header); err != nil {
		return nil, err
	}
	return raw, nil
}

// checkBodyType accepts application/json in UTF-8, not compressed. Anything else could be SQL: Tinybird
// runs a raw body over the pipe.
func checkBodyType(h http.Header) error {
	for _, line := range h.Values("Content-Encoding") {
		if line != "" && !strings.EqualFold(line, "identity") {
			return apierr.New(http.StatusUnsupportedMediaType, apierr.UnsupportedBody,
				"The request's body is compressed. Send it without Content-Encoding.")
		}
	}
	if lines := h.Values("Content-Type"); len(lines) == 1 && jsonType(lines[0]) {
		return nil
	}
	return apierr.New(http.StatusUnsupportedMediaType, apierr.UnsupportedBody,
		"The request's body must be a JSON object with Content-Type: application/json.")
}

func jsonType(contentType string) bool {
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "application/json" {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}

func bodyTooLarge() *apierr.Error {
	return apierr.New(http.StatusRequestEntityTooLarge, apierr.BodyTooLarge,
		"The request's body is too large. Ask for less at a time.")
}
