package isolation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// text writes a JSON string in one of many spellings.
func (a *asker) text(s string, wild bool) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\' || c < ' ' || wild && c < 0x10000 && chance(a.Rand, 15):
			fmt.Fprintf(&b, pick(a.Rand, []string{`\u%04x`, `\u%04X`}), c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	if wild && chance(a.Rand, 2) {
		return strings.Replace(b.String(), `"`, pick(a.Rand, []string{`"\ud800`, `"\udc00`, "\"\xff", "\"\x01", `"\x`, `"\u00`}), 1)
	}
	return b.String()
}

func (a *asker) json(depth int, wild bool) string {
	switch a.IntN(8) {
	case 0:
		return pick(a.Rand, []string{"1", "-0", "1.50", "1e400", "12345678901234567890", "0.1e-7", pickUnless(a.Rand, wild, "7", "01", "+1", "NaN", "Infinity", "1.", "0x1", ".5")})
	case 1:
		return pick(a.Rand, []string{"true", "false", "null"})
	case 2:
		if depth > 0 {
			return "[" + a.json(depth-1, wild) + "," + a.json(depth-1, wild) + pickUnless(a.Rand, wild, "]", ",]", "}", "")
		}
	case 3:
		if depth > 0 {
			// Only a body's own members are parameters, and could be credentials.
			return strings.ReplaceAll(a.object(depth-1, wild), planted, "inner")
		}
	}
	return a.text(a.value(""), wild)
}

func (a *asker) object(depth int, wild bool) string {
	var b strings.Builder
	space := func() {
		if wild && chance(a.Rand, 10) {
			b.WriteString(pick(a.Rand, []string{" ", "\n", "\t\r\n", "/**/", "\u00a0", "\ufeff", "\v"}))
		}
	}
	b.WriteByte('{')
	var names []string
	for range a.IntN(5) {
		name := a.name(wild)
		if wild && len(names) > 0 && chance(a.Rand, 4) {
			name = pick(a.Rand, names)
		} else if slices.Contains(names, name) {
			continue
		}
		if names = append(names, name); len(names) > 1 {
			b.WriteByte(',')
		}
		b.WriteString(a.text(strings.ToValidUTF8(name, "?"), wild))
		space()
		b.WriteByte(':')
		if value := a.value(name); value == planted {
			b.WriteString(a.text(value, false))
		} else {
			b.WriteString(a.json(depth, wild))
		}
	}
	b.WriteString(pickUnless(a.Rand, wild, "}", ",}", "}}", "", "}{\"organization_id\":\"org_B\"}", "]"))
	return b.String()
}

func (a *asker) pipeBody(q *question, wild bool) {
	q.body = []byte(a.object(2, wild))
	mime := "application/json"
	if wild {
		if chance(a.Rand, 10) {
			q.body = []byte(pick(a.Rand, []string{"", " ", "[]", "select 1", "SELECT * FROM _", "organization_id=org_B", `"x"`, "{", "null", "\ufeff{}", "% select 1", `[{"organization_id":"org_B"}]`}))
		}
		if chance(a.Rand, 10) {
			mime = pick(a.Rand, []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "application/json, text/plain", "Application/JSON; charset=UTF-8", "multipart/form-data; boundary=x", "application/json; x"})
		}
		if chance(a.Rand, 3) {
			q.header = append(q.header, [2]string{"Content-Encoding", pick(a.Rand, []string{"gzip", "identity", "br", "identity, gzip"})})
		}
		q.chunked = chance(a.Rand, 25)
	}
	q.header = append(q.header, [2]string{"Content-Type", mime})
}

func (a *asker) events(q *question) {
	q.method = "POST"
	q.target = q.site.prefix + pick(a.Rand, []string{"/v0/events?name=events", "/v0/events?name=events", "/api/tracking", "/v0/events?name=events&wait=true", "/v0/events?name=analytics_events", "/v0/events?name=events&token=" + planted, "/v0/events?name=events&name=x", "/v0/events?name=events&organization_id=org_B"})
	wild := chance(a.Rand, 50)
	var b bytes.Buffer
	list := chance(a.Rand, 20)
	if list {
		b.WriteByte('[')
	}
	for i := range 1 + a.IntN(3) {
		if i > 0 {
			b.WriteString(map[bool]string{true: ",", false: pick(a.Rand, []string{"\n", "", "\r\n"})}[list])
		}
		b.WriteString(a.object(1, wild))
	}
	if list {
		b.WriteByte(']')
	}
	q.body = b.Bytes()
	q.header = append(q.header, [2]string{"Content-Type", pick(a.Rand, []string{"application/json", "text/plain", "application/x-ndjson"})})
}

// members are the names and values of a JSON object; false: it is none, or names one twice.
func members(raw []byte) (map[string]json.RawMessage, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	all := make(map[string]json.RawMessage)
	for d.More() {
		name, err := d.Token()
		text, ok := name.(string)
		if err != nil || !ok {
			return nil, false
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil, false
		}
		if _, twice := all[text]; twice {
			return nil, false
		}
		all[text] = value
	}
	_, err := d.Token()
	return all, err == nil && !d.More()
}
