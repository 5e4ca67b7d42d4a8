package document_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/document"
)

func TestTree(t *testing.T) {
	dir := folder(t, map[string]string{"s.yaml": schedule, "values.yaml": "a: 1\n", "readme.txt": "no"})
	for _, sub := range []string{"jobs", ".git"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, sub, "deep"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, sub, "deep", "a.yml"), []byte(job), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "jobs", "c.json"), []byte(`{"id":"c","days":["2026-12-24"]}`), 0o600))
	docs, others, err := document.Tree([]string{dir})
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "values.yaml")}, others)
	var got []string
	for _, d := range docs {
		got = append(got, string(d.Kind)+" "+d.ID)
	}
	require.Equal(t, []string{"calendar c", "job a", "schedule s"}, got)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "again.yaml"), []byte(job), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte(schedule+"odd: 1\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "typo.yaml"), []byte("id: x\nexceute: {}\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "broken.yaml"), []byte("id: [\n"), 0o600))
	_, _, err = document.Tree([]string{dir, filepath.Join(dir, "values.yaml"), filepath.Join(dir, "none")})
	for _, says := range []string{"job a is in ", "bad.yaml: odd: unknown key", "values.yaml: neither a job", "typo.yaml: neither a job", "broken.yaml: neither a job", "none: no such file"} {
		require.ErrorContains(t, err, says)
	}
}
