package cli_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestApply(t *testing.T) {
	system(t)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	const nightly = "id: nightly\njob_id: a\nwhen: {calendar: {at: '02:30'}}\ntarget: {all: true}\ncalendars: [holidays]\ntz: utc\n"
	write("jobs/a.yaml", script("a", "echo a"))
	write("jobs/b.yaml", "id: b\nversion: 1.0.0\nexecute: {shell: sh, timeout: 30s, script_file: b.sh}\n")
	write("jobs/b.sh", "echo b\n")
	write("schedules/nightly.yaml", nightly)
	write("calendars/holidays.yaml", "id: holidays\ndays: [2026-12-24]\n")
	write("values.yaml", "a: 1\n")

	dry := kanade(t, "apply", "-f", dir, "--dry-run")
	require.Equal(t, 2, dry.code)
	require.Equal(t, filepath.Join(dir, "values.yaml")+": no job, schedule or calendar, left out\n", dry.err)
	require.Contains(t, dry.out, "create calendar holidays  ("+filepath.Join(dir, "calendars/holidays.yaml")+")\ncreate job a ")
	require.Contains(t, dry.out, "4 to create, 0 to change, 0 to delete, 0 unchanged\n")
	require.Equal(t, "[]\n", ok(t, "job", "list", "--json"))

	done := kanade(t, "apply", "-f", dir)
	require.Zero(t, done.code, done.err)
	require.Regexp(t, `\napplied \(log \d+\)\n$`, done.out)
	require.NoError(t, os.Remove(filepath.Join(dir, "values.yaml")))
	require.Equal(t, "0 to create, 0 to change, 0 to delete, 4 unchanged\n", ok(t, "apply", "-f", dir))
	require.Equal(t, "0 to create, 0 to change, 0 to delete, 4 unchanged\n", ok(t, "apply", "-f", dir, "--dry-run", "--prune"))
	require.Equal(t, nightly, ok(t, "schedule", "show", "nightly"))
	require.Regexp(t, `\nholidays +blackout +2026-12-24 +-\n`, ok(t, "calendar", "list"))

	write("schedules/nightly.yaml", nightly+"# a comment\n")
	write("jobs/b.sh", "echo two\n")
	ok(t, "schedule", "disable", "nightly")
	eventually(t, "enabled: false", "schedule", "show", "nightly")
	changed := kanade(t, "apply", "-f", dir, "--dry-run")
	require.Equal(t, 2, changed.code)
	require.Contains(t, changed.out, "    - enabled: false\n    + # a comment\n")
	require.Regexp(t, `    - +.*echo b\n    \+ +.*echo two\n`, changed.out)
	require.Contains(t, changed.out, "0 to create, 2 to change, 0 to delete, 2 unchanged\n")
	ok(t, "apply", "-f", dir)
	require.Equal(t, nightly+"# a comment\n", ok(t, "schedule", "show", "nightly"))
	require.Equal(t, "0 to create, 0 to change, 0 to delete, 4 unchanged\n", ok(t, "apply", "-f", dir))

	// Only what is of a kind in the files goes, and only when that is said.
	ok(t, "schedule", "create", file(t, "other.yaml", "id: other\njob_id: b\nwhen: {cron: '0 4 * * *'}\ntarget: {all: true}\n"))
	eventually(t, "job_id: b", "schedule", "show", "other")
	require.Contains(t, kanade(t, "apply", "-f", filepath.Join(dir, "jobs"), "--prune", "--dry-run").out, "0 to delete, 2 unchanged\n")
	require.NoError(t, os.Remove(filepath.Join(dir, "jobs/b.yaml")))
	asked := kanade(t, "apply", "-f", dir, "--prune")
	require.Equal(t, 1, asked.code)
	require.Contains(t, asked.out, "delete schedule other\ndelete job b  (and revoke it)\n")
	require.Contains(t, asked.err, "2 documents would be deleted, for good: repeat it with --yes")
	require.Contains(t, ok(t, "job", "list"), "\nb ")
	pruned := okJSON[[]map[string]any](t, "apply", "-f", dir, "--prune", "--yes")
	require.Len(t, pruned, 5)
	require.NotContains(t, ok(t, "job", "list"), "\nb ")
	require.NotContains(t, ok(t, "schedule", "list"), "other")

	alone := kanade(t, "apply", "-f", filepath.Join(dir, "jobs/a.yaml"), "--prune", "--yes")
	require.Equal(t, 1, alone.code)
	require.Contains(t, alone.err, "a.yaml is a file: --prune")

	write("schedules/nightly.yaml", nightly+"odd: 1\n")
	bad := kanade(t, "apply", "-f", dir)
	require.Equal(t, 1, bad.code)
	require.Contains(t, bad.err, "nightly.yaml: odd: unknown key")
	require.Contains(t, bad.err, "nothing was applied")
}

// What somebody else changes or creates between the comparison and the write is left as it is.
func TestApplyLosesNoEdit(t *testing.T) {
	api := system(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	require.NoError(t, os.WriteFile(path, []byte(script("a", "echo one")), 0o600))
	ok(t, "apply", "-f", dir)
	require.NoError(t, os.WriteFile(path, []byte(script("a", "echo two")), 0o600))

	target, err := url.Parse(api.URL)
	require.NoError(t, err)
	var edited atomic.Bool
	proxy, theirs := httputil.NewSingleHostReverseProxy(target), file(t, "theirs.yaml", script("a", "echo three"))
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/api/jobs" {
			if !edited.Swap(true) { // by somebody who goes to the API himself
				kanade(t, "job", "create", "--backend-url", api.URL, theirs)
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	lost := kanade(t, "apply", "-f", dir, "--backend-url", front.URL)
	require.Equal(t, 1, lost.code)
	require.Contains(t, lost.err, "change job a: job 'a' has changed")
	require.Contains(t, lost.out, "0 of 1 applied\n")
	eventually(t, "echo three", "job", "show", "a")

	edited.Store(false)
	theirs = file(t, "new.yaml", script("b", "echo four"))
	require.NoError(t, os.WriteFile(path, []byte(script("b", "echo five")), 0o600))
	lost = kanade(t, "apply", "-f", dir, "--backend-url", front.URL)
	require.Equal(t, 1, lost.code)
	require.Contains(t, lost.err, "create job b: job 'b' is there already")
	eventually(t, "echo four", "job", "show", "b")
}
