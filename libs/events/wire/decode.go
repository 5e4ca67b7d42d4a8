package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// FieldError says which field of a message is refused and why. Every refusal of a Decode function wraps one.
type FieldError struct {
	// Field is the path from the message's root: "retry.max", "processes[2].pid". Empty is the message itself.
	Field string
	// Reason completes a sentence that begins with the field.
	Reason string
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Reason
	}
	return e.Field + ": " + e.Reason
}

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

func fieldOf(f reflect.StructField) field {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	optional := options == "omitzero"
	hasDefault := f.Tag.Get("wire") == "default"
	return field{
		name: name, alias: f.Tag.Get("alias"),
		optional: optional, nullable: optional && !hasDefault, required: !optional && !hasDefault,
	}
}

// readObject fills the struct v from one JSON object.
func readObject(v reflect.Value, data []byte, path string) error {
	if d, ok := v.Addr().Interface().(defaulter); ok {
		d.setDefaults()
	}
	_, strict := v.Interface().(stricter)
	fields := make(map[string]int, v.NumField())
	for i := range v.NumField() {
		f := fieldOf(v.Type().Field(i))
		fields[f.name] = i
		if f.alias != "" {
			fields[f.alias] = i
		}
	}
	seen := make([]bool, v.NumField())
	err := eachMember(data, path, func(name string, raw json.RawMessage) error {
		at := join(path, name)
		i, known := fields[name]
		switch {
		case !known && strict:
			return &FieldError{at, "is not a known key"}
		case !known:
			return nil
		case seen[i]:
			return &FieldError{at, "is given twice"}
		}
		seen[i] = true
		if isNull(raw) && fieldOf(v.Type().Field(i)).nullable {
			return nil
		}
		return read(v.Field(i), raw, at)
	})
	if err != nil {
		return err
	}
	for i := range v.NumField() {
		if f := fieldOf(v.Type().Field(i)); f.required && !seen[i] {
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
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && trimmed[0] != '{' && json.Valid(data) {
		return &FieldError{path, describe(trimmed) + " where an object belongs"}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	malformed := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return &FieldError{path, "is not JSON: " + err.Error()}
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
		// Inside an object the decoder gives nothing but strings as names.
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

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// under puts a path before the field of a *FieldError.
func under(path string, err error) error {
	var f *FieldError
	if path == "" || !errors.As(err, &f) {
		return err
	}
	return &FieldError{join(path, f.Field), f.Reason}
}

// describe says what a JSON value is, short enough for a log line.
func describe(raw []byte) string {
	const most = 40
	text := string(raw)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	switch raw[0] {
	case '"':
		return "text " + text
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return text
	case 'n':
		return "null"
	default:
		return "number " + text
	}
}

// want says what belongs into a field of the type.
func want(t reflect.Type) string {
	if t == timeType {
		return "an RFC 3339 time"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return want(t.Elem())
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.Uint32:
		return "a whole number from 0 to 2^32-1"
	case reflect.Uint64:
		return "a whole number from 0 to 2^64-1"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	default:
		return "an object"
	}
}
