package devstack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// format is one way to write a Result. JSON, NDJSON and CSV have the content types that were recorded from
// Tinybird; those of Parquet and Prometheus are not documented and are ClickHouse's.
type format struct {
	contentType string
	clickhouse  string // ClickHouse's name for it
	encode      func(Result) ([]byte, error)
}

func formats() map[string]format {
	return map[string]format{
		"json":         {"application/json; charset=UTF-8", "JSON", encodeJSON},
		"ndjson":       {"application/x-ndjson", "JSONEachRow", encodeNDJSON},
		"csv":          {"text/csv; charset=UTF-8; header=absent", "CSV", func(r Result) ([]byte, error) { return encodeCSV(r, false), nil }},
		"csvwithnames": {"text/csv; charset=UTF-8; header=present", "CSVWithNames", func(r Result) ([]byte, error) { return encodeCSV(r, true), nil }},
		"parquet":      {"application/octet-stream", "Parquet", encodeParquet},
		"prometheus":   {"text/plain; version=0.0.4; charset=UTF-8", "Prometheus", encodePrometheus},
	}
}

func encodeJSON(res Result) ([]byte, error) {
	type column struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	doc := struct {
		Meta        []column          `json:"meta"`
		Data        []json.RawMessage `json:"data"`
		Rows        int               `json:"rows"`
		BeforeLimit *int              `json:"rows_before_limit_at_least,omitempty"`
		Statistics  struct {
			Elapsed   float64 `json:"elapsed"`
			RowsRead  int     `json:"rows_read"`
			BytesRead int     `json:"bytes_read"`
		} `json:"statistics"`
	}{Data: []json.RawMessage{}, Rows: len(res.Rows)}
	for _, c := range res.Columns {
		doc.Meta = append(doc.Meta, column(c))
	}
	for _, row := range res.Rows {
		obj, err := jsonObject(res.Columns, row)
		if err != nil {
			return nil, err
		}
		doc.Data = append(doc.Data, obj)
	}
	if res.Limited {
		doc.BeforeLimit = &res.BeforeLimit
	}
	// Made up out of the rows, so that the same question has the same answer.
	doc.Statistics.Elapsed = float64(res.RowsRead) / 1e6
	doc.Statistics.RowsRead, doc.Statistics.BytesRead = res.RowsRead, res.RowsRead*128
	return marshal(doc)
}

func encodeNDJSON(res Result) ([]byte, error) {
	var b bytes.Buffer
	for _, row := range res.Rows {
		obj, err := jsonObject(res.Columns, row)
		if err != nil {
			return nil, err
		}
		b.Write(obj)
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// jsonObject keeps the order of the columns.
func jsonObject(cols []Column, row []any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for n, c := range cols {
		v := row[n]
		if t, ok := v.(time.Time); ok {
			v = timeText(t, c.Type)
		}
		name, err := marshal(c.Name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(v)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			b.WriteByte(',')
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal leaves <, > and & alone: Tinybird does, too.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode as JSON: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// encodeCSV writes CSV as ClickHouse does: everything but numbers is quoted.
func encodeCSV(res Result, names bool) []byte {
	var b bytes.Buffer
	line := func(cells []string) {
		b.WriteString(strings.Join(cells, ","))
		b.WriteByte('\n')
	}
	cells := make([]string, len(res.Columns))
	if names {
		for n, c := range res.Columns {
			cells[n] = csvQuote(c.Name)
		}
		line(cells)
	}
	for _, row := range res.Rows {
		for n, c := range res.Columns {
			text := cellText(row[n], c.Type)
			switch row[n].(type) {
			case uint64, float64:
			default:
				text = csvQuote(text)
			}
			cells[n] = text
		}
		line(cells)
	}
	return b.Bytes()
}

func csvQuote(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func cellText(v any, typ string) string {
	switch v := v.(type) {
	case string:
		return v
	case uint64:
		return strconv.FormatUint(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case time.Time:
		return timeText(v, typ)
	case map[string]string:
		pairs := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			pairs = append(pairs, "'"+k+"':'"+v[k]+"'")
		}
		return "{" + strings.Join(pairs, ",") + "}"
	}
	return fmt.Sprint(v)
}

func timeText(t time.Time, typ string) string {
	if typ == "Date" {
		return t.UTC().Format(time.DateOnly)
	}
	return t.UTC().Format(time.DateTime)
}
