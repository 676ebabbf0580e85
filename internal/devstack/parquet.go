package devstack

import (
	"bytes"
	"fmt"
	"reflect"
	"time"

	"github.com/parquet-go/parquet-go"
)

// encodeParquet writes one row group. The schema is derived from a struct type made on the spot, as that keeps the
// order of the columns; a parquet.Group would sort them.
func encodeParquet(res Result) ([]byte, error) {
	fields := make([]reflect.StructField, len(res.Columns))
	for n, c := range res.Columns {
		typ, option, err := parquetType(c.Type)
		if err != nil {
			return nil, err
		}
		fields[n] = reflect.StructField{
			Name: fmt.Sprintf("C%d", n),
			Type: typ,
			Tag:  reflect.StructTag(fmt.Sprintf(`parquet:"%s%s"`, c.Name, option)),
		}
	}
	model := reflect.StructOf(fields)
	var b bytes.Buffer
	w := parquet.NewGenericWriter[any](&b, parquet.SchemaOf(reflect.New(model).Interface()))
	for _, row := range res.Rows {
		rec := reflect.New(model).Elem()
		for n, v := range row {
			if t, ok := v.(time.Time); ok && fields[n].Type.Kind() == reflect.Int32 {
				v = int32(t.Unix() / (24 * 3600)) //nolint:gosec // days since 1970 fit for the next five million years
			}
			rec.Field(n).Set(reflect.ValueOf(v))
		}
		if _, err := w.Write([]any{rec.Interface()}); err != nil {
			return nil, fmt.Errorf("write a parquet row: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("finish the parquet file: %w", err)
	}
	return b.Bytes(), nil
}

func parquetType(clickhouse string) (typ reflect.Type, option string, err error) {
	switch clickhouse {
	case "String":
		return reflect.TypeFor[string](), "", nil
	case "UInt64":
		return reflect.TypeFor[uint64](), "", nil
	case "Float64":
		return reflect.TypeFor[float64](), "", nil
	case "Date":
		return reflect.TypeFor[int32](), ",date", nil
	case "DateTime":
		return reflect.TypeFor[time.Time](), ",timestamp", nil
	case "Map(String, String)":
		return reflect.TypeFor[map[string]string](), "", nil
	}
	return nil, "", shapeError("Parquet format has no type for " + clickhouse)
}
