package catalog

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// SourceType is the language of a document's text.
type SourceType string

// The languages.
const (
	YAML SourceType = "yaml"
	JSON SourceType = "json"
)

// decoder puts a node into a Go value by the value's type and its tags: json gives the key, is:"required" a key that must
// be there, is:"null" one that may be null, which is the same as absent. Other keys keep their default when absent and
// must not be null.
type decoder struct {
	problems
	// numbersAsText lets a number stand for its text where text is expected.
	numbersAsText bool
	// noNumbersIn are the keys of the root below which numbersAsText does not hold.
	noNumbersIn []string
	// lenient ignores unknown keys, missing keys and unknown words: for documents that were accepted before.
	lenient bool
}

type (
	// defaulter fills in what absent keys mean.
	defaulter interface{ defaults() }
	// word is text of a closed list.
	word interface{ words() []string }
	// union is a type with a form of its own.
	union interface {
		decode(d *decoder, n *node, path string)
	}
)

// parse reads a document strictly, up to and including its shape.
func parse(src []byte, t SourceType, limit int, into any, noNumbersIn ...string) (*decoder, error) {
	d := &decoder{noNumbersIn: noNumbersIn}
	if len(src) > limit {
		return d, refuse(Invalid, 0, "", "%d bytes are more than the limit of %d", len(src), limit)
	}
	var n *node
	var err error
	switch t {
	case YAML:
		n, err = readYAML(src)
		d.numbersAsText, d.lines = true, map[string]int{}
	case JSON:
		n, err = readJSON(src)
	default:
		err = refuse(Malformed, 0, "", "expected the source type yaml or json, got %q", string(t))
	}
	if err != nil {
		return d, err
	}
	if n.kind != objectNode {
		return d, refuse(Shape, n.line, "", "expected a map, got %s", n)
	}
	d.repeated(n, "")
	d.into(n, into, "")
	return d, d.err()
}

// decodeLeniently reads JSON that was accepted before.
func decodeLeniently(text []byte, into any) error {
	n, err := readJSON(text)
	if err != nil {
		return err
	}
	d := &decoder{lenient: true}
	d.into(n, into, "")
	return d.err()
}

// repeated finds keys given twice, anywhere, and notes lines.
func (d *decoder) repeated(n *node, path string) {
	if d.lines != nil && n.line > 0 {
		d.lines[path] = n.line
	}
	if len(n.items) == 0 {
		return
	}
	seen := make(map[string]bool, len(n.keys))
	for i := range n.items {
		if n.kind == listNode {
			if item := &n.items[i]; d.lines != nil || len(item.items) > 0 {
				d.repeated(item, place(path, i))
			}
			continue
		}
		key := n.keys[i]
		inner := join(path, key)
		d.repeated(&n.items[i], inner)
		if seen[key] {
			d.add(Shape, inner, "given twice")
		}
		seen[key] = true
	}
}

// into decodes a value inside a union.
func (d *decoder) into(n *node, v any, path string) { d.value(n, reflect.ValueOf(v).Elem(), path) }

func (d *decoder) value(n *node, v reflect.Value, path string) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch into := v.Addr().Interface().(type) {
	case union:
		into.decode(d, n, path)
		return
	case *time.Time:
		t, err := time.Parse(time.RFC3339, n.text)
		if year := t.UTC().Year(); n.kind != textNode || err != nil || year < 1 || year > 9999 {
			d.add(Shape, path, "expected a time like 2026-01-31T08:00:00Z, got %s", n)
		}
		*into = t.UTC()
		return
	case *jsontext.Value:
		*into = d.raw(n, path)
		return
	}
	switch v.Kind() {
	case reflect.String:
		d.text(n, v, path)
	case reflect.Bool:
		if n.kind != boolNode {
			d.add(Shape, path, "expected true or false, got %s", n)
		}
		v.SetBool(n.text == "true")
	case reflect.Int:
		i, err := strconv.ParseInt(n.text, 10, 32)
		if n.kind != numberNode || err != nil {
			d.add(Shape, path, "expected a whole number, got %s", n)
		}
		v.SetInt(i)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.dictionary(n, v, path)
	case reflect.Struct:
		d.object(n, v, path)
	default:
		d.add(Shape, path, "can't be given in a document")
	}
}

func (d *decoder) text(n *node, v reflect.Value, path string) {
	if n.kind != textNode && (n.kind != numberNode || !d.numbersAsText) {
		d.add(Shape, path, "expected text, got %s", n)
		return
	}
	if closed, is := v.Interface().(word); is && !d.lenient && !slices.Contains(closed.words(), n.text) {
		d.add(Shape, path, "expected %s, got %s", either(closed.words()), n)
	}
	v.SetString(n.text)
}

func (d *decoder) list(n *node, v reflect.Value, path string) {
	if n.kind != listNode {
		d.add(Shape, path, "expected a list, got %s", n)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	texts, _ := v.Addr().Interface().(*[]string)
	for i := range n.items {
		if item := &n.items[i]; texts != nil && item.kind == textNode { // a plan may name a hundred thousand
			(*texts)[i] = item.text
		} else {
			d.value(item, v.Index(i), place(path, i))
		}
	}
}

func (d *decoder) dictionary(n *node, v reflect.Value, path string) {
	if n.kind != objectNode {
		d.add(Shape, path, "expected a map, got %s", n)
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i, key := range n.keys {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(&n.items[i], item, join(path, key))
		v.SetMapIndex(reflect.ValueOf(key), item)
	}
}

func (d *decoder) object(n *node, v reflect.Value, path string) {
	if n.kind != objectNode {
		d.add(Shape, path, "expected a map, got %s", n)
		return
	}
	v.SetZero()
	if into, is := v.Addr().Interface().(defaulter); is {
		into.defaults()
	}
	fields := fieldsOf(v)
	for i, key := range n.keys {
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key })
		switch {
		case at < 0 && !d.lenient:
			d.add(Shape, join(path, key), "unknown key, expected one of %s", names(fields))
		case at >= 0:
			fields[at].given = true
			d.member(&n.items[i], fields[at], join(path, key))
		}
	}
	for _, f := range fields {
		if f.required && !f.given && !d.lenient {
			d.add(Shape, join(path, f.name), "missing")
		}
	}
}

func (d *decoder) member(n *node, f field, path string) {
	if n.kind == nullNode {
		if !f.nullable && !d.lenient {
			d.add(Shape, path, "must not be null")
		}
		return
	}
	if slices.Contains(d.noNumbersIn, path) && d.numbersAsText {
		d.numbersAsText = false
		defer func() { d.numbersAsText = true }()
	}
	d.value(n, f.value, path)
}

// raw keeps a value as JSON.
func (d *decoder) raw(n *node, path string) jsontext.Value {
	var b bytes.Buffer
	if err := n.write(jsontext.NewEncoder(&b, jsontext.AllowDuplicateNames(true))); err != nil {
		d.add(Shape, path, "can't be written as JSON: %v", err)
	}
	return jsontext.Value(bytes.TrimSpace(b.Bytes()))
}

// field is a key of an object and the place for its value.
type field struct {
	name                      string
	required, nullable, given bool
	value                     reflect.Value
}

// fieldsOf lists the keys of a struct, those of embedded structs in their place.
func fieldsOf(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		if f.Anonymous {
			out = append(out, fieldsOf(v.Field(i))...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out = append(out, field{
			name: name, value: v.Field(i),
			required: f.Tag.Get("is") == "required", nullable: f.Tag.Get("is") == "null",
		})
	}
	return out
}

func names(fields []field) string {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.name
	}
	return strings.Join(list, ", ")
}

// either lists words: "a", "a or b", "a, b or c".
func either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return fmt.Sprintf("%s or %s", strings.Join(words[:last], ", "), words[last])
}
