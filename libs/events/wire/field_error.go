package wire

import (
	"errors"
	"reflect"
	"strings"
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
