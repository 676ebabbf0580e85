package bapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// FuzzAnswer: whatever is accepted is what a plain reading of the document finds, and an error shows no secret.
func FuzzAnswer(f *testing.F) {
	for _, doc := range []string{
		`{"object":"cookies","cookies":["a=1","b=2"]}`,
		`{"object":1,"cookies":[]}`,
		`{"object":null,"cookies":[]}`,
		`{"cookies":null}`,
		`{"cookies":["a",null]}`,
		`{"Cookies":["a"]}`,
		`{"cookies":["a"],"cookies":["b","\ud800"]}`,
		`{"errors":[{"code":"not_found"}]}`,
		`{"errors":[{"code":"` + nonce + `"}]}`,
		`{"errors":[{"code":"` + secretKey + `"}]}`,
		`<html>`,
		``,
	} {
		f.Add([]byte(doc))
	}
	c := &Client{key: secretKey}
	f.Fuzz(func(t *testing.T, doc []byte) {
		list, err := decodeList(doc, "cookies", "cookies")
		want, ok := plainList(doc)
		if ok != (err == nil) || ok != (list != nil) || !slices.Equal(list, want) {
			t.Fatalf("got %q, %v; want %q, %v", list, err, want, ok)
		}
		if err != nil && !slices.Contains([]error{errNoJSON, errShape}, err) {
			t.Fatalf("the error could quote the answer: %v", err)
		}
		e := c.refused(http.StatusUnauthorized, doc, []string{"", nonce})
		if strings.Contains(e.Error(), secretKey) || strings.Contains(e.Error(), nonce) || strings.Trim(e.Code, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			t.Fatalf("code %q", e.Code)
		}
	})
}

func plainList(doc []byte) (texts []string, ok bool) {
	var value any
	if json.Unmarshal(doc, &value) != nil {
		return nil, false
	}
	answer, ok := value.(map[string]any)
	if !ok {
		return nil, false
	}
	if kind, there := answer["object"]; there && kind != "cookies" {
		return nil, false
	}
	list, ok := answer["cookies"].([]any)
	if !ok {
		return nil, false
	}
	for _, one := range list {
		text, ok := one.(string)
		if !ok {
			return nil, false
		}
		texts = append(texts, text)
	}
	return texts, true
}

// FuzzRequest: whatever the session id and the nonce are, the key goes to the configured host and to no other path.
func FuzzRequest(f *testing.F) {
	f.Add("https://api.clerk.com", "sess_1", "n")
	f.Add("http://127.0.0.1:4000/clerk/", "../../../x", "a&b=c#d")
	f.Add("https://[::1]:443//evil.example.com/%2e%2e", "@evil", "\r\nHost: x")
	f.Add("https://a.example.com/%2F%2Fevil", "//evil.example.com/x", "%zz")
	f.Fuzz(func(t *testing.T, base, sid, nonce string) {
		var got *http.Request
		c, err := New(Options{URL: base, SecretKey: secretKey, Client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r
			return response(r, http.StatusOK, `{"cookies":[],"directives":[]}`), nil
		})}})
		if err != nil {
			return
		}
		host := strings.TrimSuffix(c.base.Host, ":") // as net/http does
		_, _ = c.HandshakePayload(t.Context(), nonce)
		if got != nil {
			if got.URL.Host != host || got.Host != host || got.URL.User != nil || !strings.HasSuffix(got.URL.Path, "/v1/clients/handshake_payload") ||
				len(got.URL.Query()) != 1 || got.URL.Query().Get("nonce") != nonce {
				t.Fatalf("nonce %q: %v", nonce, got.URL)
			}
		}
		got = nil
		_, _ = c.RefreshSession(t.Context(), Refresh{SessionID: sid})
		if got != nil {
			if got.URL.Host != host || got.Host != host || got.URL.User != nil || !strings.HasSuffix(got.URL.EscapedPath(), "/v1/sessions/"+sid+"/refresh") ||
				strings.ContainsAny(sid, "/.%?#") || got.URL.RawQuery != "" {
				t.Fatalf("session id %q: %v", sid, got.URL)
			}
		}
	})
}
