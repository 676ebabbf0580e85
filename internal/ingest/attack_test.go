package ingest

import (
	"strings"
	"testing"
	"testing/iotest"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/jsonobject"
)

// However a client spells a stamped field, and as often as it does, what goes up has the stamp and nothing else in it.
func TestStampOverridesTheClient(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ row, kept string }{
		"plain":                          {`{"tenant_id":"evil","a":1}`, `"a":1,`},
		"alone":                          {`{"tenant_id":"evil"}`, ""},
		"nothing sent":                   {`{}`, ""},
		"first member":                   {`{"tenant_id":"evil","a":1,"b":2}`, `"a":1,"b":2,`},
		"last member":                    {`{"a":1,"b":2,"tenant_id":"evil"}`, `"a":1,"b":2,`},
		"in between":                     {`{"a":1,"tenant_id":"evil","b":2}`, `"a":1,"b":2,`},
		"escaped":                        {`{"tenant\u005fid":"evil","a":1}`, `"a":1,`},
		"escaped throughout":             {`{"\u0074\u0065\u006e\u0061\u006e\u0074\u005f\u0069\u0064":"evil"}`, ""},
		"letter case":                    {`{"Tenant_ID":"evil","TENANT_ID":"evil"}`, ""},
		"escaped letter case":            {`{"\u0054ENANT_ID":"evil"}`, ""},
		"doubled":                        {`{"tenant_id":"evil","a":1,"tenant_id":"evil"}`, `"a":1,`},
		"doubled in other spelling":      {`{"tenant_id":"x","tenant\u005fid":"y","TENANT_id":"z"}`, ""},
		"as an object":                   {`{"tenant_id":{"tenant_id":"evil"}}`, ""},
		"as null":                        {`{"tenant_id":null}`, ""},
		"every stamp":                    {`{"task":1,"tenant_id":"evil"}`, ""},
		"folds by Unicode: long s":       {`{"taſk":1}`, ""},
		"folds by Unicode: Kelvin":       {`{"tas\u212a":1}`, ""},
		"upper case only: dotless i":     {`{"tenant_ıd":"evil"}`, ""},
		"lower case only: dotted I":      {`{"TENANT_İD":"evil"}`, ""},
		"nested same name":               {`{"a":{"tenant_id":"mine"},"b":[{"tenant_id":"mine"}]}`, `"a":{"tenant_id":"mine"},"b":[{"tenant_id":"mine"}],`},
		"__proto__":                      {`{"__proto__":{"tenant_id":"evil"}}`, `"__proto__":{"tenant_id":"evil"},`},
		"a name that is longer":          {`{"tenant_id2":1,"tenant_i":2," tenant_id":3}`, `"tenant_id2":1,"tenant_i":2," tenant_id":3,`},
		"within a text":                  {`{"a":"\",\"tenant_id\":\"evil"}`, `"a":"\",\"tenant_id\":\"evil",`},
		"line break in a text":           {`{"a":"x\n{\"tenant_id\":\"evil\"}\r\n"}`, `"a":"x\n{\"tenant_id\":\"evil\"}\r\n",`},
		"escaped NUL in a text":          {`{"a":"x\u0000"}`, `"a":"x\u0000",`},
		"numbers keep their digits":      {`{"n":123456789012345678901234567890.10e-07,"z":-0,"o":1E400}`, `"n":123456789012345678901234567890.10e-07,"z":-0,"o":1E400,`},
		"line separators are no breaks":  {"{\"a\":\"\u2028\u0085\"}", "\"a\":\"\u2028\u0085\","},
		"spread over lines":              {"{\r\n\t\"a\" :\n[ 1 ,\n2 ]\n}", `"a":[1,2],`},
		"a whole character from escapes": {`{"a":"\ud83d\ude00"}`, `"a":"😀",`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := "{" + tt.kept + stamps
			up, _, refusal := run(t, strings.NewReader(tt.row))
			if refusal != nil || up != want+"\n" {
				t.Errorf("got %s, %v; want %s", up, refusal, want)
			}
			up, _, refusal = run(t, strings.NewReader("["+tt.row+"]"))
			if refusal != nil || up != want+"\n" {
				t.Errorf("in a list: got %s, %v", up, refusal)
			}
		})
	}
}

// What two readers could take for different rows is no row, and nothing of a small body goes up with it.
func TestBadRows(t *testing.T) {
	t.Parallel()
	deep := jsonobject.MaxDepth
	for name, tt := range map[string]struct {
		body string
		row  int
	}{
		"BOM":                           {"\xef\xbb\xbf{\"a\":1}", 1},
		"BOM between rows":              {"{\"a\":1}\n\xef\xbb\xbf{\"a\":1}", 2},
		"NUL between rows":              {"{\"a\":1}\x00{\"a\":1}", 2},
		"NUL in a text":                 {"{\"a\":\"\x00\"}", 1},
		"control character in a text":   {"{\"a\":\"\x1b\"}", 1},
		"escaped NUL in a name":         {`{"tenant_id\u0000":"evil"}`, 1},
		"delete in a name":              {"{\"tenant_id\x7f\":\"evil\"}", 1},
		"line break in a text":          {"{\"a\":\"x\ny\"}", 1},
		"line feed in a name":           {`{"tenant_id\n":"evil"}`, 1},
		"invalid UTF-8":                 {"{\"a\":\"\xff\"}", 1},
		"overlong UTF-8":                {"{\"a\":\"\xc0\xaf\"}", 1},
		"invalid UTF-8 in a name":       {"{\"tenant_id\xff\":1}", 1},
		"lone surrogate":                {`{"a":"\ud800"}`, 1},
		"lone surrogate in a name":      {`{"tenant_id\udc00":1}`, 1},
		"NaN":                           {`{"a":NaN}`, 1},
		"Infinity":                      {`{"a":-Infinity}`, 1},
		"plus sign":                     {`{"a":+1}`, 1},
		"hexadecimal":                   {`{"a":0x10}`, 1},
		"comment":                       {`{"a":1/*,"tenant_id":2*/}`, 1},
		"line comment":                  {"{\"a\":1 //\n}", 1},
		"single quotes":                 {`{'a':1}`, 1},
		"no quotes":                     {`{a:1}`, 1},
		"trailing comma":                {`{"a":1,}`, 1},
		"doubled member":                {`{"a":1,"a":2}`, 1},
		"doubled by an escape":          {`{"a":1,"\u0061":2}`, 1},
		"doubled deeper":                {`{"a":[{"b":1,"b":1}]}`, 1},
		"doubled in what is left out":   {`{"tenant_id":{"b":1,"b":1}}`, 1},
		"brackets do not match":         {`{"a":[1}]`, 1},
		"too deep":                      {`{"a":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`, 1},
		"too deep in what is left out":  {`{"tenant_id":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`, 1},
		"a million deep":                {`{"a":` + strings.Repeat("[", 1_000_000), 1},
		"too many members":              {`{"a":` + manyMembers(jsonobject.MaxMembers) + `}`, 1},
		"number":                        {"{\"a\":1}\n42", 2},
		"text":                          {`"a"`, 1},
		"null":                          {"null", 1},
		"comma between rows":            {`{"a":1},{"a":2}`, 2},
		"garbage after a row":           {`{"a":1}x`, 2},
		"closing brace too many":        {`{"a":1}}`, 2},
		"cut off":                       {"{\"a\":1}\n{\"a\":", 2},
		"cut off in a text":             {`{"a":"`, 1},
		"the end is escaped":            {`{"a":"\"}`, 1},
		"missing brace swallows a row":  {"{\"a\":1\n{\"a\":2}\n", 1},
		"list in NDJSON":                {"{\"a\":1}\n[{\"a\":2}]", 2},
		"list in a list":                {`[[{"a":1}]]`, 1},
		"number in a list":              {`[{"a":1},7]`, 2},
		"list not closed":               {`[{"a":1}`, 2},
		"list not begun":                {`{"a":1}]`, 2},
		"list without comma":            {`[{"a":1}{"a":2}]`, 2},
		"list with trailing comma":      {`[{"a":1},]`, 2},
		"list with leading comma":       {`[,{"a":1}]`, 1},
		"after the list":                {`[{"a":1}]{"a":2}`, 2},
		"two lists":                     {`[{"a":1}][{"a":2}]`, 2},
		"comma after the list":          {`[{"a":1}],`, 2},
		"nothing":                       {"", 0},
		"white space":                   {" \r\n\t", 0},
		"empty list":                    {"[ ]", 0},
		"only an opening bracket":       {"[", 1},
		"after an empty list":           {"[]{}", 1},
		"form feed is no white space":   {"\f{}", 1},
		"no-break space is not, either": {"\u00a0{}", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, result, refusal := run(t, strings.NewReader(tt.body))
			if refusal == nil || refusal.Status != 400 || refusal.Code != apierr.BadBody || refusal.Rows.Row != tt.row {
				t.Fatalf("got %v, %+v", refusal, result)
			}
			if up != "" {
				t.Errorf("went up all the same: %.100q", up)
			}
			if strings.Contains(refusal.Message, "evil") {
				t.Errorf("the client's values are in %q", refusal.Message)
			}
			if len(tt.body) < 10_000 {
				_, again, small := run(t, iotest.OneByteReader(strings.NewReader(tt.body)))
				if small == nil || string(small.Body()) != string(refusal.Body()) || again != result {
					t.Errorf("byte by byte: %v, %+v", small, again)
				}
			}
		})
	}
}

// manyMembers is an object with n members.
func manyMembers(n int) string {
	var b strings.Builder
	b.WriteString(`{"x":0`)
	for i := 1; i < n; i++ {
		b.WriteString(`,"`)
		b.WriteString(strings.Repeat("k", 1+i%7))
		for v := i; v > 0; v /= 10 {
			b.WriteByte(byte('0' + v%10))
		}
		b.WriteString(`":0`)
	}
	return b.String() + "}"
}
