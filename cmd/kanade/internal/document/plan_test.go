package document_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/document"
)

func TestLoadPlanKeepsWhatTheFileSays(t *testing.T) {
	dir := folder(t, map[string]string{
		"p.yaml": "deadline_at: 2027-01-31T08:00:00Z\nmax_failures: 10%\nparams: {a: 1.5, b: '1', c: [true, null]} # kept\n",
		"p.json": `{"deadline_at":"2027-01-31T08:00:00Z","max_failures":"10%","params":{"a":1.50,"b":"1","c":[true,null]}}`,
	})
	for _, name := range []string{"p.yaml", "p.json"} {
		p, err := document.LoadPlan(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Len(t, p, 3)
		require.JSONEq(t, `"2027-01-31T08:00:00Z"`, string(p["deadline_at"]))
		require.JSONEq(t, `"10%"`, string(p["max_failures"]))
		require.JSONEq(t, `{"a":1.5,"b":"1","c":[true,null]}`, string(p["params"]))
	}
}

func TestLoadPlanRefusals(t *testing.T) {
	files := map[string]string{
		"empty.yaml": "# nothing\n", "list.yaml": "- a\n", "text.yml": "a", "twice.yaml": "a: 1\na: 2\n", "deep.yaml": "a: {b: 1, b: 2}\n",
		"twice.json": `{"a":1,"a":2}`, "deep.json": `{"a":{"b":1,"b":2}}`, "more.json": "{} {}", "null.json": "null", "open.yaml": "a: [",
	}
	dir := folder(t, files)
	for name := range files {
		_, err := document.LoadPlan(filepath.Join(dir, name))
		require.ErrorContains(t, err, name, name)
	}
	_, err := document.LoadPlan(filepath.Join(dir, "gone.yaml"))
	require.ErrorContains(t, err, "gone.yaml")
}

func TestLoadNames(t *testing.T) {
	dir := folder(t, map[string]string{"pcs": "\ufeffpc-01\r\n\n  pc-02 # the other\n#pc-03\npc-04", "none": "# nobody\n\n"})
	names, err := document.LoadNames(filepath.Join(dir, "pcs"))
	require.NoError(t, err)
	require.Equal(t, []string{"pc-01", "pc-02", "pc-04"}, names)
	_, err = document.LoadNames(filepath.Join(dir, "none"))
	require.ErrorContains(t, err, "no endpoint in it")
	_, err = document.LoadNames(filepath.Join(dir, "gone"))
	require.Error(t, err)
}
