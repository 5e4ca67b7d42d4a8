package catalog

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// A schema that can't be used is found when the manifest is read, not when somebody gives a value.
func TestParamsThatAreRefused(t *testing.T) {
	for params, want := range map[string]string{
		"{a: [1]}":                             "execute.params.a: expected a JSON Schema",
		"{a: 1, b-c: {}}":                      "execute.params.a: expected a JSON Schema; execute.params.b-c: can't be the name of a parameter: expected letters, digits and _",
		"{a: {type: wobble}}":                  "execute.params.a: not a JSON Schema: at '/type': value must be one of 'array', 'boolean', 'integer', 'null', 'number', 'object', 'string', at '/type': got string, want array",
		"{a: {pattern: '('}}":                  "execute.params.a: not a JSON Schema: at '/pattern': '(' is not valid regex: error parsing regexp: missing closing ): `(`",
		"{a: {$ref: 'https://example.com/x'}}": "execute.params.a: not a JSON Schema: failing loading \"https://example.com/x\": a schema can't refer to another one",
		"{a: {$ref: 'file:///etc/passwd'}}":    "execute.params.a: not a JSON Schema: failing loading \"file:///etc/passwd\": a schema can't refer to another one",
		"{a: {type: integer, default: x}}":     "execute.params.a.default: got string, want integer",
		"{PORT: {}}":                           "execute.params.PORT: names a variable that execute.env names already",
		"{port: {}}":                           "execute.params.port: names a variable that execute.env names already",
		"{a: {}, A: {}}":                       "execute.params.a: names a variable that another param names already",
	} {
		_, err := ParseManifest([]byte(head+"execute:\n  shell: sh\n  script: x\n  timeout: 10s\n  env: {PORT: 80}\n  params: "+params+"\n"), YAML)
		require.Error(t, err, params)
		e := asError(t, err)
		require.Equal(t, Invalid, e.Kind)
		for i := range e.Problems {
			e.Problems[i].Line = 0
		}
		require.EqualError(t, e, want)
	}
}

func TestResolve(t *testing.T) {
	m, err := ParseManifest([]byte(head+`execute:
  shell: sh
  script_object: tool/1.0
  timeout: 90s
  run_as: user
  cwd: /tmp
  args: [-v]
  stdin: "yes\n"
  env: {COLOR: red}
  success_codes: [0, 3010]
  params:
    name: {type: string, minLength: 1}
    count: {type: integer, maximum: 10, default: 3}
    rate: {type: number, default: 1.50}
    force: {type: boolean, default: false}
    list: {type: array, items: {format: date}, default: []}
    note: {type: [string, "null"], default: null}
staleness: {mode: strict, max_cache_age: 5m}
`), YAML)
	require.NoError(t, err)
	require.NoError(t, m.Unsupported())
	values := func(text string) map[string]jsontext.Value {
		p, err := ParsePlan([]byte(`{"target":{"all":true},"params":` + text + `}`))
		require.NoError(t, err)
		return p.Params
	}
	s, err := m.Resolve(values(`{"name":"a \"b\" <c>"}`))
	require.NoError(t, err)
	require.Equal(t, events.Script{
		Shell: "sh", Object: "tool/1.0", TimeoutSecs: 90, RunAs: "user", Cwd: "/tmp", Args: []string{"-v"}, Stdin: "yes\n",
		SuccessCodes: []int{0, 3010}, Staleness: "strict", MaxCacheAge: "5m",
		Env: map[string]string{"COLOR": "red", "name": `a "b" <c>`, "count": "3", "rate": "1.50", "force": "false", "list": "[]"},
	}, s)
	require.Equal(t, map[string]string{"COLOR": "red"}, m.Execute.Env, "the manifest is not touched")
	s, err = m.Resolve(values(`{"name":"n","count":10,"force":true,"list":[ "2026-01-31" ],"note":"x"}`))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"COLOR": "red", "name": "n", "count": "10", "rate": "1.50", "force": "true", "list": `["2026-01-31"]`, "note": "x"}, s.Env)

	for text, want := range map[string]string{
		`{}`:                                "params.name: missing: the param has no default",
		`{"name":"n","odd":1}`:              "params.odd: the job has no such param",
		`{"name":"","count":"3"}`:           "params.count: got string, want integer; params.name: minLength: got 0, want 1",
		`{"name":"a\u0000b"}`:               "params.name: must not contain a zero byte",
		`{"name":null}`:                     "params.name: got null, want string",
		`{"name":"n","count":1e-999999999}`: "params.count: 1e-999999999 is not a number that can be calculated with",
		`{"name":"n","count":11}`:           "params.count: maximum: got 11, want 10",
		`{"name":"n","list":["31.1."]}`:     "params.list: at '/0': '31.1.' is not valid date: parsing time \"31.1.\" as \"2006-01-02\": cannot parse \"31.1.\" as \"2006\"",
	} {
		_, err := m.Resolve(values(text))
		require.EqualError(t, err, want, text)
		require.Equal(t, Invalid, asError(t, err).Kind)
	}

	m, err = ParseManifest([]byte(minJob), YAML)
	require.NoError(t, err)
	s, err = m.Resolve(nil)
	require.NoError(t, err)
	require.Equal(t, events.Script{Shell: "sh", Body: "x", TimeoutSecs: 10, RunAs: "system"}, s)
}

func TestNumbersBeyondCalculationAreRefused(t *testing.T) {
	for _, n := range []string{"1e400", "1e-400", "1e999999999", "-0." + strings.Repeat("1", 100)} {
		_, err := ParseManifest([]byte(`{"id":"a","version":"1","execute":{"shell":"sh","script":"x","timeout":"1s","params":{"a":{"enum":[{"b":`+n+`}]}}}}`), JSON)
		require.ErrorContains(t, err, "execute.params.a: ")
		require.ErrorContains(t, err, "is not a number that can be calculated with")
	}
}
