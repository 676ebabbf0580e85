package devstack

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// shapeError says that a result cannot be written in the format that was asked for; the API answers 400.
type shapeError string

func (e shapeError) Error() string { return string(e) }

// encodePrometheus writes Prometheus' text format from the columns that Tinybird asks for: name and value, and
// if they are there help, type, timestamp and labels.
func encodePrometheus(res Result) ([]byte, error) {
	at := func(name string) int {
		return slices.IndexFunc(res.Columns, func(c Column) bool { return c.Name == name })
	}
	name, value := at("name"), at("value")
	if name < 0 || value < 0 {
		return nil, shapeError("Prometheus format requires the columns 'name' (String) and 'value' (Number)")
	}
	var b bytes.Buffer
	var last string
	for n, row := range res.Rows {
		metric := cellText(row[name], "")
		if n == 0 || metric != last {
			comment(&b, "HELP", metric, row, at("help"))
			comment(&b, "TYPE", metric, row, at("type"))
			last = metric
		}
		b.WriteString(metric)
		if l := at("labels"); l >= 0 {
			labels, ok := row[l].(map[string]string)
			if !ok {
				return nil, shapeError("Prometheus format requires the column 'labels' to be Map(String, String)")
			}
			b.WriteString(labelText(labels))
		}
		b.WriteString(" " + cellText(row[value], ""))
		if t := at("timestamp"); t >= 0 {
			b.WriteString(" " + cellText(row[t], ""))
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

func comment(b *bytes.Buffer, what, metric string, row []any, col int) {
	if col >= 0 {
		fmt.Fprintf(b, "# %s %s %s\n", what, metric, cellText(row[col], ""))
	}
}

func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	pairs := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, k+"="+strconv.Quote(labels[k]))
	}
	return "{" + strings.Join(pairs, ",") + "}"
}
