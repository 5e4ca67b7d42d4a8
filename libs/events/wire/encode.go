package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// encode writes a struct by the tags that decode reads it by.
func encode(message any) ([]byte, error) {
	v := reflect.ValueOf(message)
	var b bytes.Buffer
	for i, f := range fieldsOf(v.Type()) {
		if f.optional && v.Field(i).IsZero() {
			continue
		}
		value, err := write(v.Field(i))
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", f.name, err)
		}
		b.WriteByte("{,"[min(b.Len(), 1)])
		b.WriteByte('"')
		b.WriteString(f.name)
		b.WriteString(`":`)
		b.Write(value)
	}
	if b.Len() == 0 {
		return []byte("{}"), nil
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// write encodes one field. No list is written as null: readers refuse that.
func write(v reflect.Value) ([]byte, error) {
	if v.Kind() == reflect.Slice && v.Type() != rawType && v.IsNil() {
		return []byte("[]"), nil
	}
	switch x := v.Interface().(type) {
	case time.Time:
		return writeTime(x)
	case *time.Time:
		return writeTime(*x)
	}
	return json.Marshal(v.Interface())
}

// writeTime writes as many digits of the fraction as 0.43.45 does: none, 3, 6 or 9.
func writeTime(t time.Time) ([]byte, error) {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("the year %d is outside 0 to 9999", y)
	}
	layout := `"2006-01-02T15:04:05.000000000Z"`
	switch ns := t.Nanosecond(); {
	case ns == 0:
		layout = `"2006-01-02T15:04:05Z"`
	case ns%1e6 == 0:
		layout = `"2006-01-02T15:04:05.000Z"`
	case ns%1e3 == 0:
		layout = `"2006-01-02T15:04:05.000000Z"`
	}
	return t.AppendFormat(nil, layout), nil
}
