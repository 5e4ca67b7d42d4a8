package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// param is one input of a job.
type param struct {
	schema *jsonschema.Schema
	// standard is the default as written; nil when there is none, and the param is required.
	standard jsontext.Value
}

// checkParams holds what can be said of the params before anybody gives a value: each schema is one, its default keeps
// it, and no two variables have one name, which Windows does not tell apart by case.
func (e *Execute) checkParams(p *problems) {
	taken := map[string]string{}
	for name := range e.Env {
		taken[strings.ToLower(name)] = "execute.env"
	}
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		path := join("execute.params", name)
		if !isIdentifier(name) {
			p.add(Invalid, path, "can't be the name of a parameter: expected letters, digits and _")
		}
		if by := taken[strings.ToLower(name)]; by != "" {
			p.add(Invalid, path, "names a variable that %s names already", by)
		}
		taken[strings.ToLower(name)] = "another param"
		x, err := e.param(name)
		switch {
		case err != nil:
			p.add(Invalid, path, "%v", err)
		case x.standard != nil:
			if _, _, err := x.text(x.standard); err != nil {
				p.add(Invalid, path+".default", "%v", err)
			}
		}
	}
}

// environment is Env with the values of the params. A param without a value and without a default is a problem, and so
// is a value that no param has.
func (e *Execute) environment(p *problems, values map[string]jsontext.Value) map[string]string {
	env := maps.Clone(e.Env)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if _, known := e.Params[name]; !known {
			p.add(Invalid, join("params", name), "the job has no such param")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Params)) {
		path := join("params", name)
		x, err := e.param(name)
		if err != nil {
			p.add(Invalid, path, "%v", err)
			continue
		}
		value, given := values[name]
		if !given {
			value = x.standard
		}
		if value == nil {
			p.add(Invalid, path, "missing: the param has no default")
			continue
		}
		text, set, err := x.text(value)
		if err != nil {
			p.add(Invalid, path, "%v", err)
		}
		if set {
			if env == nil {
				env = map[string]string{}
			}
			env[name] = text
		}
	}
	return env
}

// noReferences keeps a schema from reading files or the network.
type noReferences struct{}

func (noReferences) Load(string) (any, error) {
	return nil, errors.New("a schema can't refer to another one")
}

// schemaURL is the base of what a schema says of itself; it is never opened.
const schemaURL = "param:schema"

func (e *Execute) param(name string) (param, error) {
	var x param
	source := e.Params[name]
	if k := source.Kind(); k != '{' && k != 't' && k != 'f' {
		return x, errors.New("expected a JSON Schema")
	}
	doc, err := plainValue(source)
	if err != nil {
		return x, err
	}
	if _, is := doc.(map[string]any); is {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(source, &keys); err != nil {
			return x, err
		}
		x.standard = jsontext.Value(keys["default"])
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(noReferences{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return x, fmt.Errorf("not a JSON Schema: %w", err)
	}
	if x.schema, err = c.Compile(schemaURL); err != nil {
		return x, fmt.Errorf("not a JSON Schema: %s", reasons(err))
	}
	return x, nil
}

// text is a value as it stands in the environment; not set for null.
func (x param) text(value jsontext.Value) (text string, set bool, err error) {
	v, err := plainValue(value)
	if err != nil {
		return "", false, err
	}
	if err := x.schema.Validate(v); err != nil {
		return "", false, errors.New(reasons(err))
	}
	switch v := v.(type) {
	case nil:
		return "", false, nil
	case string:
		text = v
	default:
		var b bytes.Buffer
		if err := json.Compact(&b, value); err != nil {
			return "", false, err
		}
		text = b.String()
	}
	if strings.ContainsRune(text, 0) {
		return "", false, errors.New("must not contain a zero byte")
	}
	return text, true, nil
}

// plainValue reads JSON as the schema library takes it. Numbers that it can't calculate with are refused.
func plainValue(text jsontext.Value) (any, error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return v, checkNumbers(v)
}

func checkNumbers(v any) error {
	switch v := v.(type) {
	case json.Number:
		const longest = 100
		text := v.String()
		f, err := strconv.ParseFloat(text, 64)
		if mantissa, _, _ := strings.Cut(strings.ToLower(text), "e"); err != nil || len(text) > longest || f == 0 && strings.ContainsAny(mantissa, "123456789") {
			return fmt.Errorf("%.20s is not a number that can be calculated with", text)
		}
	case []any:
		for _, item := range v {
			if err := checkNumbers(item); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, item := range v {
			if err := checkNumbers(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// reasons are the innermost findings of the schema library, as sentences.
func reasons(err error) string {
	var schema *jsonschema.SchemaValidationError
	if errors.As(err, &schema) {
		err = schema.Err
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return strings.ReplaceAll(err.Error(), schemaURL, "")
	}
	var list []string
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		for _, cause := range e.Causes {
			walk(cause)
		}
		if len(e.Causes) == 0 {
			list = append(list, strings.TrimPrefix(e.Error(), "at '': "))
		}
	}
	walk(invalid)
	return strings.Join(list, ", ")
}
