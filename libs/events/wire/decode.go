package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
)

// What a type may have beside its fields. A field's own rules are in its tags: `omitzero` is an optional field,
// `wire:"default"` one that may be absent but not null, `alias` an old name; any other field must be there.
type (
	// defaulter sets what an absent field means, before anything is read.
	defaulter interface{ setDefaults() }
	// checker refuses what the types let through. Its errors are *FieldError, relative to the value.
	checker interface{ check() error }
	// stricter marks objects in which an unknown key is refused.
	stricter interface{ strictKeys() }
)

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

// decode reads a message of type T.
func decode[T any](noun string, data []byte) (T, error) {
	var v T
	if err := readObject(reflect.ValueOf(&v).Elem(), data, ""); err != nil {
		var zero T
		return zero, fmt.Errorf("decode %s: %w", noun, err)
	}
	return v, nil
}

// field is one field of a message as its tags say.
type field struct {
	name, alias string
	// optional: not written when zero. nullable: may be null when read. required: must be there when read.
	optional, nullable, required bool
}

// fieldsOf reads the tags of a struct; the index is the field's own.
func fieldsOf(t reflect.Type) []field {
	fields := make([]field, t.NumField())
	for i := range fields {
		tag := t.Field(i).Tag
		name, options, _ := strings.Cut(tag.Get("json"), ",")
		optional := options == "omitzero"
		hasDefault := tag.Get("wire") == "default"
		fields[i] = field{
			name: name, alias: tag.Get("alias"),
			optional: optional, nullable: optional && !hasDefault, required: !optional && !hasDefault,
		}
	}
	return fields
}

// readObject fills the struct v from one JSON object.
func readObject(v reflect.Value, data []byte, path string) error {
	if d, ok := v.Addr().Interface().(defaulter); ok {
		d.setDefaults()
	}
	_, strict := v.Addr().Interface().(stricter)
	fields := fieldsOf(v.Type())
	seen := make([]bool, len(fields))
	err := eachMember(data, path, func(name string, raw json.RawMessage) error {
		i := slices.IndexFunc(fields, func(f field) bool { return name == f.name || name == f.alias && name != "" })
		switch {
		case i < 0 && strict:
			return &FieldError{join(path, name), "is not a known key"}
		case i < 0:
			return nil
		case seen[i]:
			return &FieldError{join(path, name), "is given twice"}
		}
		seen[i] = true
		if isNull(raw) && fields[i].nullable {
			return nil
		}
		return read(v.Field(i), raw, join(path, name))
	})
	if err != nil {
		return err
	}
	for i, f := range fields {
		if f.required && !seen[i] {
			return &FieldError{join(path, f.name), "is missing"}
		}
	}
	if c, ok := v.Addr().Interface().(checker); ok {
		return under(path, c.check())
	}
	return nil
}

// eachMember calls fn for each member of a JSON object, in order.
func eachMember(data []byte, path string, fn func(name string, raw json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	malformed := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return &FieldError{path, "is not JSON: " + err.Error()}
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && trimmed[0] != '{' {
		var other json.RawMessage
		if err := json.Unmarshal(data, &other); err != nil {
			return malformed(err)
		}
		return &FieldError{path, describe(other) + " where an object belongs"}
	}
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return malformed(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return malformed(err)
		}
		// Where an object was opened the decoder gives nothing but strings as names.
		if err := fn(name.(string), raw); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return malformed(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &FieldError{path, "is not JSON: something follows the object"}
	}
	return nil
}

// read sets v, a field, an element or what a pointer points to.
func read(v reflect.Value, raw json.RawMessage, path string) error {
	switch {
	case v.Type() == rawType:
		if !isNull(raw) {
			v.Set(reflect.ValueOf(raw))
		}
		return nil
	case isNull(raw):
		return &FieldError{path, "null where " + want(v.Type()) + " belongs"}
	case v.Type() == timeType:
		t, err := readTime(raw, path)
		v.Set(reflect.ValueOf(t))
		return err
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return read(v.Elem(), raw, path)
	case reflect.Struct:
		return readObject(v, raw, path)
	case reflect.Slice:
		return readList(v, raw, path)
	case reflect.Map:
		return readMap(v, raw, path)
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		return &FieldError{path, describe(raw) + " where " + want(v.Type()) + " belongs"}
	}
	return nil
}

func readTime(raw json.RawMessage, path string) (time.Time, error) {
	var t time.Time
	if err := t.UnmarshalJSON(raw); err != nil {
		return time.Time{}, &FieldError{path, describe(raw) + " where " + want(timeType) + " belongs"}
	}
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		return time.Time{}, &FieldError{path, "the year is outside 0 to 9999 in UTC"}
	}
	return t, nil
}

func readList(v reflect.Value, raw json.RawMessage, path string) error {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return &FieldError{path, describe(raw) + " where " + want(v.Type()) + " belongs"}
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		if err := read(v.Index(i), item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

func readMap(v reflect.Value, raw json.RawMessage, path string) error {
	v.Set(reflect.MakeMap(v.Type()))
	return eachMember(raw, path, func(name string, raw json.RawMessage) error {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := read(item, raw, join(path, name)); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(name), item)
		return nil
	})
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }
