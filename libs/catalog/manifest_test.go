package catalog

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	head   = "id: a\nversion: \"1\"\n"
	runs   = "execute: {shell: sh, script: x, timeout: 10s}\n"
	minJob = head + runs
)

// asError demands that an error is ours, and gives it.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.NotEmpty(t, e.Problems)
	return e
}

func TestManifestRefusals(t *testing.T) {
	execute := func(rest string) string { return head + "execute: {shell: sh, timeout: 10s, " + rest + "}\n" }
	for _, c := range []struct {
		source string
		kind   Kind
		want   string
	}{
		{"", Malformed, "the document is empty"},
		{"# nothing\n", Malformed, "the document is empty"},
		{"id: [", Malformed, "not readable as YAML: sequence end token ']' not found (line 1)"},
		{minJob + "---\n" + minJob, Malformed, "expected one document, found more (line 5)"},
		{minJob + "<<: {a: b}\n", Malformed, "merge keys (<<) are not supported in documents (line 4)"},
		{minJob + "description: !!binary aGk=\n", Malformed, "the tag !!binary is not supported in documents (line 4)"},
		{minJob + "description: *x\n", Malformed, "the alias *x names no anchor before it (line 4)"},
		{minJob + "tags:\n  -\n  - a\n", Malformed, "an entry of a list is empty (line 5)"},
		{"id: \xff\n", Malformed, "not readable as YAML: it is not UTF-8"},
		{"hello\n", Shape, `expected a map, got "hello" (line 1)`},
		{"- a\n", Shape, "expected a map, got a list (line 1)"},
		{minJob + "wobble: 1\n", Shape, "wobble: unknown key, expected one of id, version, description, execute, require_approval, inventory, emit, check, staleness, client, tags (line 4)"},
		{minJob + "id: b\n", Shape, "id: given twice (line 4)"},
		{head + "execute:\n  shell: sh\n  script: x\n  script: y\n  timeout: 1s\n", Shape, "execute.script: given twice (line 6)"},
		{runs, Shape, "id: missing (line 1); version: missing (line 1)"},
		{head, Shape, "execute: missing (line 1)"},
		{head + "execute: {script: x}\n", Shape, "execute.shell: missing (line 3); execute.timeout: missing (line 3)"},
		{head + "execute: {shell: bash, script: x, timeout: 10s}\n", Shape, `execute.shell: expected powershell, cmd, sh or pwsh, got "bash" (line 3)`},
		{minJob + "require_approval: yes\n", Shape, `require_approval: expected true or false, got "yes" (line 4)`},
		{minJob + "require_approval: ~\n", Shape, "require_approval: must not be null (line 4)"},
		{minJob + "tags: a\n", Shape, `tags: expected a list, got "a" (line 4)`},
		{minJob + "tags: [[a]]\n", Shape, "tags[0]: expected text, got a list (line 4)"},
		{minJob + "staleness: null\n", Shape, "staleness: must not be null (line 4)"},
		{minJob + "staleness: {}\n", Shape, "staleness.mode: missing (line 4)"},
		{minJob + "staleness: {mode: cached, max: 1}\n", Shape, "staleness.max: unknown key, expected one of mode, max_cache_age (line 4)"},
		{minJob + "check: {name: a, fleet: 1}\n", Shape, "check.fleet: expected true or false, got 1 (line 4)"},
		{minJob + "inventory: {summary: []}\n", Shape, "inventory.display: missing (line 4)"},
		{minJob + "inventory: {display: [{field: a, label: b, odd: c}]}\n", Shape, "inventory.display[0].odd: unknown key, expected one of field, label, type, columns (line 4)"},
		{execute("script: x, success_codes: [1.5]"), Shape, "execute.success_codes[0]: expected a whole number, got 1.5 (line 3)"},
		{execute("script: x, env: {A.B: [1]}"), Shape, `execute.env["A.B"]: expected text, got a list (line 3)`},

		{"id: -a\nversion: 1\n" + runs, Invalid, `id: invalid id "-a": must begin with a letter or digit (line 1)`},
		{"id: " + strings.Repeat("a", 129) + "\nversion: 1\n" + runs, Invalid, "id: invalid id: 129 characters, the limit is 128 (line 1)"},
		{execute("cwd: /"), Invalid, "execute: one of script, script_file, script_object must be set (line 3)"},
		{execute(`script: ""`), Invalid, "execute: one of script, script_file, script_object must be set (line 3)"},
		{execute("script: x, script_file: y"), Invalid, "execute: only one of script, script_file, script_object may be set (line 3)"},
		{execute(`script: x, script_object: ""`), Invalid, "execute: only one of script, script_file, script_object may be set (line 3); execute.script_object: expected <name>/<version> in ASCII without quotes and backslashes, got \"\" (line 3)"},
		{execute("script_object: a/b/c"), Invalid, "execute.script_object: expected <name>/<version> in ASCII without quotes and backslashes, got \"a/b/c\" (line 3)"},
		{head + "execute:\n  shell: sh\n  script: x\n  timeout: soon\n", Invalid, `execute.timeout: expected a duration like 30s, got "soon" (line 6)`},
		{head + "execute: {shell: sh, script: x, timeout: 10}\n", Invalid, `execute.timeout: expected a duration like 30s, got "10" (line 3)`},
		{execute(`script: x, args: ["a\0"]`), Invalid, "execute.args[0]: must not contain a zero byte (line 3)"},
		{execute("script: x, env: {A=B: c}"), Invalid, "execute.env.A=B: can't be the name of a variable (line 3)"},
		{execute("script: x, success_codes: []"), Invalid, "execute.success_codes: must not be empty: nothing would be a success (line 3)"},
		{execute("script: x, params: {a-b: {}, c: 1}"), Invalid, "execute.params.a-b: can't be the name of a parameter: expected letters, digits and _ (line 3); execute.params.c: expected a JSON Schema (line 3)"},
		{minJob + "emit: {type: events}\ncheck: {name: a}\n", Invalid, "emit: excludes inventory and check: stdout is either events or one document (line 4)"},
		{minJob + "check: {name: ' ', status_field: '', troubleshoot: ''}\n", Invalid, "check.name: must not be blank (line 4); check.status_field: must not be blank (line 4); check.troubleshoot: must not be blank (line 4)"},
		{minJob + "client: {name: ' ', category: catalog, icon: ' '}\n", Invalid, "client.name: must not be blank (line 4); client.icon: must not be blank (line 4)"},
		{minJob + "staleness: {mode: strict}\n", Invalid, "staleness.max_cache_age: missing: the mode strict needs it (line 4)"},
		{minJob + "staleness: {mode: strict, max_cache_age: soon}\n", Invalid, `staleness.max_cache_age: expected a duration like 30s, got "soon" (line 4)`},
		{minJob + "inventory: {display: [], explode: [{field: a, table: 1a, primary_key: [], columns: [{field: b}, {field: B}]}]}\n", Invalid,
			`inventory.explode[0].table: "1a" can't be the name of a table: expected [A-Za-z_][A-Za-z0-9_]{0,63} (line 4); inventory.explode[0].columns[1].field: "B" names a column twice (line 4); inventory.explode[0].primary_key: must not be empty (line 4)`},
		{minJob + "inventory: {display: [], explode: [{field: a, table: t, primary_key: [pc_id, c], columns: [{field: b}]}]}\n", Invalid,
			`inventory.explode[0].primary_key[1]: "c" is none of the columns (line 4)`},
	} {
		_, err := ParseManifest([]byte(c.source), YAML)
		require.EqualError(t, err, c.want, c.source)
		require.Equal(t, c.kind, asError(t, err).Kind, c.want)
	}
}

func TestManifestInJSONIsAsStrict(t *testing.T) {
	for source, want := range map[string]string{
		``:      "the document is empty",
		`{`:     "not readable as JSON: it ends too early",
		`{} x`:  "not readable as JSON: invalid character 'x' at start of value after offset 3",
		`{} {}`: "not readable as JSON: text after the end of the document",
		`[]`:    "expected a map, got a list",
		`{"id":"a","version":1,"execute":{"shell":"sh","script":"x","timeout":"1s"}}`:            "version: expected text, got 1",
		`{"id":"a","id":"b","version":"1","execute":{"shell":"sh","script":"x","timeout":"1s"}}`: "id: given twice",
		strings.Repeat("[", 100): "nested deeper than the limit of 64 levels",
	} {
		_, err := ParseManifest([]byte(source), JSON)
		require.EqualError(t, err, want, source)
	}
	_, err := ParseManifest([]byte(minJob), "toml")
	require.EqualError(t, err, `expected the source type yaml or json, got "toml"`)
}

func TestManifestYAMLForms(t *testing.T) {
	m, err := ParseManifest([]byte(`# a job
---
id: &id build/a.1
version: 1.10
description: null
execute:
  shell: sh
  timeout: 1h 30m
  env: {PORT: 8080, HEX: 0x1F, YES: yes, 5: five}
  script: |
    echo one

    echo two
  args: [*id, !!str true, 012]
require_approval: True
tags: ["x: y"]
...
`), YAML)
	require.NoError(t, err)
	require.Equal(t, "build/a.1", m.ID)
	require.Equal(t, "1.10", m.Version)
	require.Nil(t, m.Description)
	require.Equal(t, "echo one\n\necho two\n", m.Execute.Script)
	require.Equal(t, map[string]string{"PORT": "8080", "HEX": "0x1F", "YES": "yes", "5": "five"}, m.Execute.Env)
	require.Equal(t, []string{"build/a.1", "true", "012"}, m.Execute.Args)
	require.True(t, m.RequireApproval)
	require.EqualValues(t, 5400, m.Execute.TimeoutSecs())
}

func TestManifestLimits(t *testing.T) {
	script := func(n int) []byte {
		return fmt.Appendf(nil, `{"id":"a","version":"1","execute":{"shell":"sh","timeout":"0","script":%q}}`, strings.Repeat("x", n))
	}
	m, err := ParseManifest(script(MaxScript), JSON)
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Execute.TimeoutSecs())
	_, err = ParseManifest(script(MaxScript+1), JSON)
	require.EqualError(t, err, "execute.script: 1048577 bytes are more than the limit of 1048576")
	_, err = ParseManifest(script(MaxManifest), JSON)
	require.ErrorContains(t, err, "bytes are more than the limit of 1572864")

	// In YAML a byte is a byte, as stored in JSON a control character takes six.
	_, err = ParseManifest([]byte(minJob+"description: \""+strings.Repeat(`\e`, 1<<19)+"\"\n"), YAML)
	require.ErrorContains(t, err, "bytes as stored are more than the limit of 1572864")
}

func TestHostileYAMLIsRefusedSoon(t *testing.T) {
	const n = 1 << 17
	for _, unit := range []string{"[", "{", "- ", "? ", "a: ", "!!str ", "&a ", "{a: ", "-\n", "a:\n", "a: b\n", "---\n", "\"\t", "!!str\n", "[!!str\n"} {
		for _, start := range []string{"", "[", "|\n"} {
			_, err := ParseManifest([]byte(start+strings.Repeat(unit, n/len(unit))), YAML)
			require.Error(t, err, "%q %q", start, unit)
		}
	}
	_, err := ParseManifest([]byte("a: |\n"+strings.Repeat("\n", n)), YAML)
	require.ErrorContains(t, err, "too many blank lines")

	laughs := "a0: &a0 [x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 12; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 8))
	}
	_, err = ParseManifest([]byte(laughs), YAML)
	require.ErrorContains(t, err, "larger than the limit of 8388608 bytes with its aliases replaced")
}

func TestManyProblemsAreCut(t *testing.T) {
	_, err := ParseManifest([]byte(minJob+"tags: ["+strings.Repeat("' ', ", 100)+"]\n"), YAML)
	e := asError(t, err)
	require.Len(t, e.Problems, maxProblems+1)
	require.Equal(t, "and more", e.Problems[maxProblems].String())
}

func TestInline(t *testing.T) {
	parse := func() *Manifest {
		m, err := ParseManifest([]byte(head+"execute: {shell: sh, script_file: run.sh, timeout: 10s}\n"), YAML)
		require.NoError(t, err)
		return m
	}
	file := func(text string, err error) func(string) ([]byte, error) {
		return func(path string) ([]byte, error) {
			require.Equal(t, "run.sh", path)
			return []byte(text), err
		}
	}
	m := parse()
	require.EqualError(t, m.Unsupported(), "execute.script_file: not supported yet (only by the CLI, which sends the text as script)")
	require.NoError(t, m.Inline(file("echo hi\n", nil)))
	require.NoError(t, m.Unsupported())
	require.Equal(t, "echo hi\n", m.Execute.Script)
	require.Nil(t, m.Execute.ScriptFile)
	require.NoError(t, m.Inline(nil))

	require.ErrorIs(t, parse().Inline(file("", os.ErrNotExist)), os.ErrNotExist)
	require.EqualError(t, parse().Inline(file("", nil)), "execute.script_file: run.sh is empty")
	require.EqualError(t, parse().Inline(file("\xff", nil)), "execute.script_file: run.sh is not UTF-8")
	require.EqualError(t, parse().Inline(file(strings.Repeat("x", MaxScript+1), nil)), "execute.script: 1048577 bytes are more than the limit of 1048576")
}
