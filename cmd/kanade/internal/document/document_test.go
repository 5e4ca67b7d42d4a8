package document_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/document"
	"kanade/examples"
	"kanade/libs/catalog"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

const (
	job      = "id: a\nversion: '1'\nexecute: {shell: sh, timeout: 1s, script: 'true'} # kept\n"
	schedule = "id: s\njob_id: a\nwhen: {cron: '* * * * *'}\ntarget: {all: true}\n"
)

func TestLoadSendsTheTextAsItIs(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": job})
	docs, skipped, err := document.Load(document.Job, []string{filepath.Join(dir, "a.yaml")})
	require.NoError(t, err)
	require.Empty(t, skipped)
	require.JSONEq(t, `"a"`, string(docs[0].Stored[len(`{"id":`):len(`{"id":"a"`)]))
	docs[0].Stored = nil
	require.Equal(t, []document.Document{
		{File: filepath.Join(dir, "a.yaml"), Kind: document.Job, ID: "a", Body: []byte(job), Type: catalog.YAML},
	}, docs)
}

func TestLoadPutsScriptInPlace(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.yaml": "id: a\nversion: '1'\nexecute: {shell: sh, timeout: 1s, script_file: a.sh}\n", "a.sh": "echo hi\n",
	})
	docs, _, err := document.Load(document.Job, []string{filepath.Join(dir, "a.yaml")})
	require.NoError(t, err)
	require.Equal(t, catalog.JSON, docs[0].Type)
	m, err := catalog.ParseManifest(docs[0].Body, catalog.JSON)
	require.NoError(t, err)
	require.Equal(t, "echo hi\n", m.Execute.Script)
	require.Nil(t, m.Execute.ScriptFile)
}

func TestLoadFolder(t *testing.T) {
	dir := folder(t, map[string]string{"b.yml": job, "a.yaml": job, "s.yaml": schedule, "readme.txt": "no"})
	docs, skipped, err := document.Load(document.Job, []string{dir})
	require.NoError(t, err)
	require.Len(t, docs, 2)
	require.Equal(t, filepath.Join(dir, "a.yaml"), docs[0].File)
	require.Equal(t, []string{filepath.Join(dir, "s.yaml")}, skipped)

	docs, skipped, err = document.Load(document.Schedule, []string{dir})
	require.NoError(t, err)
	require.Len(t, docs, 1)
	require.Len(t, skipped, 2)
}

func TestLoadNamesEveryProblemWithItsFile(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.yaml": "id: a\nversion: '1'\nexecute: {shell: sh, timeout: soon, script: x, scrip: y}\n",
		"b.yaml": "id: b\nversion: '1'\nexecute: {shell: sh, timeout: 1s, script_file: gone.sh}\n",
		"c.yaml": "{", "d.yaml": job,
	})
	docs, _, err := document.Load(document.Job, []string{dir, filepath.Join(dir, "nothing.yaml")})
	require.Nil(t, docs)
	require.ErrorContains(t, err, filepath.Join(dir, "a.yaml")+": execute.scrip: unknown key")
	require.ErrorContains(t, err, filepath.Join(dir, "b.yaml")+": ")
	require.ErrorContains(t, err, "gone.sh")
	require.ErrorContains(t, err, filepath.Join(dir, "c.yaml")+": ")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotContains(t, err.Error(), "d.yaml")
}

func TestLoadOneFileOfTheOtherKind(t *testing.T) {
	dir := folder(t, map[string]string{"s.yaml": schedule})
	_, _, err := document.Load(document.Job, []string{filepath.Join(dir, "s.yaml")})
	require.ErrorContains(t, err, "use `kanade schedule create`")
	_, _, err = document.Load(document.Job, []string{t.TempDir()})
	require.ErrorContains(t, err, "no *.yaml")
}

// Every example is accepted as it stands.
func TestExamples(t *testing.T) {
	for _, folder := range []string{"jobs/sh", "jobs/powershell", "schedules"} {
		files, err := fs.Glob(examples.FS(), folder+"/*.yaml")
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			kind := document.Job
			if folder == "schedules" {
				kind = document.Schedule
			}
			text, err := fs.ReadFile(examples.FS(), file)
			require.NoError(t, err)
			doc, err := document.Parse(kind, file, text, func(name string) ([]byte, error) {
				return fs.ReadFile(examples.FS(), folder+"/"+name)
			})
			require.NoError(t, err)
			if kind == document.Job {
				m, err := catalog.ParseManifest(doc.Body, doc.Type)
				require.NoError(t, err)
				require.NoError(t, m.Unsupported())
			} else {
				s, err := catalog.ParseSchedule(doc.Body, doc.Type)
				require.NoError(t, err)
				require.NoError(t, s.Unsupported())
			}
		}
	}
}
