package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

const yamlType = "application/yaml"

// refusal is a request that must be refused with a sentence that says what is wrong, and leave nothing behind.
type refusal struct {
	name, method, path, contentType, body string
	status                                int
	says                                  string
	// place is the path of the first problem; empty when the sentence is all there is.
	place string
}

func refusals() []refusal {
	const post, put, del, get = http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodGet
	const jsonType = "application/json"
	all := `{"target":{"all":true}}`
	manifest := func(lines string) string { return "id: x\nversion: \"1\"\n" + lines }
	schedule := func(lines string) string { return "id: s\njob_id: hello\ntarget: {all: true}\n" + lines }
	big := strings.Repeat("x", 2<<20)
	return []refusal{
		{"unknown key", post, "/api/jobs", yamlType, manifest("wobble: 1\nexecute: {shell: sh, script: x, timeout: 1s}\n"), 400, "wobble: unknown key", "wobble"},
		{"unknown key deep down", post, "/api/jobs", yamlType, manifest("execute: {shell: sh, script: x, timeout: 1s, retries: 3}\n"), 400, "execute.retries: unknown key", "execute.retries"},
		{"two script sources", post, "/api/jobs", yamlType, manifest("execute: {shell: sh, script: x, script_object: a/1, timeout: 1s}\n"), 400, "script", "execute"},
		{"bad timeout", post, "/api/jobs", yamlType, manifest("execute: {shell: sh, script: x, timeout: soon}\n"), 400, "execute.timeout", "execute.timeout"},
		{"illegal job id", post, "/api/jobs", yamlType, "id: a b\nversion: \"1\"\nexecute: {shell: sh, script: x, timeout: 1s}\n", 400, "id:", "id"},
		{"job id with an empty token", post, "/api/jobs", yamlType, "id: a..b\nversion: \"1\"\nexecute: {shell: sh, script: x, timeout: 1s}\n", 400, "id:", "id"},
		{"key that is not supported yet", post, "/api/jobs", yamlType, manifest("require_approval: true\nexecute: {shell: sh, script: x, timeout: 1s}\n"), 422, "require_approval: not supported yet", "require_approval"},
		{"param that is no schema", post, "/api/jobs", yamlType, manifest("execute: {shell: sh, script: x, timeout: 1s, params: {a: {type: wobble}}}\n"), 400, "execute.params.a: not a JSON Schema", "execute.params.a"},
		{"malformed YAML", post, "/api/jobs", yamlType, "id: [", 400, "not readable as YAML", ""},
		{"malformed JSON job", post, "/api/jobs", jsonType, `{"id":`, 400, "not readable as JSON", ""},
		{"empty job", post, "/api/jobs", yamlType, "", 400, "empty", ""},
		{"job too large", post, "/api/jobs", yamlType, big + "xx", 413, "limit of 2097152 bytes", ""},

		{"unknown job", post, "/api/exec/nojob", jsonType, all, 404, "job 'nojob' not found in catalog — register it first with `kanade job create <manifest.yaml>`", ""},
		{"dry run of an unknown job", post, "/api/exec/nojob?dry_run=true", jsonType, all, 404, "job 'nojob' not found", ""},
		{"dry run, perhaps", post, "/api/exec/hello?dry_run=maybe", jsonType, all, 400, "dry_run: expected true or false", ""},
		{"endpoint with an empty token", post, "/api/exec/hello", jsonType, `{"target":{"pcs":["a..b"]}}`, 400, "target.pcs[0]:", "target.pcs[0]"},
		{"group with an empty token", post, "/api/schedules", yamlType, "id: s\njob_id: hello\ntarget: {groups: [a..b]}\nwhen: {cron: \"0 4 * * *\"}\n", 400, "target.groups[0]:", "target.groups[0]"},
		{"illegal job id in the path", post, "/api/exec/a%20b", jsonType, all, 400, "job_id:", "job_id"},
		{"path that is not UTF-8", post, "/api/exec/%ff", jsonType, all, 400, "job_id:", "job_id"},
		{"empty plan", post, "/api/exec/hello", jsonType, `{}`, 400, "target must specify at least one of `all` / `groups` / `pcs` (or set `rollout.waves`)", "target"},
		{"empty target", post, "/api/exec/hello", jsonType, `{"target":{"groups":[],"pcs":[]}}`, 400, "target must specify at least one of", "target"},
		{"unknown key in a plan", post, "/api/exec/hello", jsonType, `{"target":{"all":true,"everyone":true}}`, 422, "target.everyone: unknown key", "target.everyone"},
		{"unknown key in a retry", post, "/api/exec/hello", jsonType, `{"target":{"all":true},"retry":{"max":1,"backoff":"1s","often":true}}`, 422, "retry.often: unknown key", "retry.often"},
		{"bad retry", post, "/api/exec/hello", jsonType, `{"target":{"all":true},"retry":{"max":11,"backoff":"1s"}}`, 400, "retry.max: 11 is outside of 1 to 10", "retry.max"},
		{"param that the job does not have", post, "/api/exec/hello", jsonType, `{"target":{"all":true},"params":{"a":1}}`, 400, "params.a: the job has no such param", "params.a"},
		{"wave beyond the deadline", post, "/api/exec/hello", jsonType, `{"deadline_at":"2020-01-01T00:00:00Z","rollout":{"waves":[{"group":"a","delay":"0s"},{"group":"b","delay":"1h"}]}}`, 400, "rollout.waves[1].delay: 1h is at or beyond deadline_at", "rollout.waves[1].delay"},
		{"nobody to run it", post, "/api/exec/hello", jsonType, `{"target":{"groups":["nobody"]},"require_targets":true}`, 422, "require_targets: no known endpoint matches the target", "require_targets"},
		{"nobody to run it, dry", post, "/api/exec/hello?dry_run=true", jsonType, `{"target":{"groups":["nobody"]},"require_targets":true}`, 422, "require_targets: no known endpoint matches the target", "require_targets"},
		{"bad jitter", post, "/api/exec/hello", jsonType, `{"target":{"all":true},"jitter":"soon"}`, 400, "jitter", "jitter"},
		{"illegal PC", post, "/api/exec/hello", jsonType, `{"target":{"pcs":["pc 1"]}}`, 400, "target.pcs[0]", "target.pcs[0]"},
		{"PC that is a wildcard", post, "/api/exec/hello", jsonType, `{"target":{"pcs":["*"]}}`, 400, "target.pcs[0]", "target.pcs[0]"},
		{"malformed plan", post, "/api/exec/hello", jsonType, `{"target":`, 400, "not readable as JSON", ""},
		{"no plan", post, "/api/exec/hello", jsonType, ``, 400, "empty", ""},
		{"plan that is no JSON", post, "/api/exec/hello", yamlType, all, 415, "Content-Type: application/json", ""},
		{"plan too large", post, "/api/exec/hello", jsonType, `{"target":{"pcs":["` + strings.Repeat("x", 16<<20) + `"]}}`, 413, "limit of 16777216 bytes", ""},
		{"deadline that has passed", post, "/api/exec/hello", jsonType, `{"target":{"all":true},"deadline_at":"2001-01-01T00:00:00Z"}`, 400, "deadline_at: 2001-01-01T00:00:00Z has passed", "deadline_at"},
		{"deadline that has passed, dry", post, "/api/exec/hello?dry_run=true", jsonType, `{"target":{"all":true},"deadline_at":"2001-01-01T00:00:00Z"}`, 400, "deadline_at: 2001-01-01T00:00:00Z has passed", "deadline_at"},
		{"dry run misspelt", post, "/api/exec/hello?dryrun=true", jsonType, all, 400, "dryrun: unknown parameter; there is dry_run", ""},

		{"schedule of an unknown job", post, "/api/schedules", yamlType, "id: s\njob_id: nojob\nwhen: {per_pc: once}\ntarget: {all: true}\n", 400, "unknown job_id 'nojob' — register the job first (kanade job create)", ""},
		{"schedule with a bad time", post, "/api/schedules", yamlType, schedule("when: {calendar: {at: \"25:99\"}}\n"), 400, "when.calendar.at", "when.calendar.at"},
		{"schedule with a bad interval", post, "/api/schedules", yamlType, schedule("when: {per_pc: {every: often}}\n"), 400, "when.per_pc.every", "when.per_pc.every"},
		{"schedule with two forms", post, "/api/schedules", yamlType, schedule("when: {per_pc: {every: 1h}, cron: \"* * * * *\"}\n"), 400, "when", "when"},
		{"schedule without a target", post, "/api/schedules", yamlType, "id: s\njob_id: hello\nwhen: {per_pc: {every: 1h}}\n", 400, "target", "target"},
		{"schedule with what is not supported by agents", post, "/api/schedules", yamlType, schedule("when: {cron: \"0 4 * * *\"}\nruns_on: agent\n"), 422, "when.cron: not supported yet (only with runs_on: backend)", "when.cron"},
		{"schedule of a calendar that is not there", post, "/api/schedules", yamlType, schedule("when: {per_pc: once}\ncalendars: [none]\n"), 422, "calendars[0]: unknown calendar 'none'", "calendars[0]"},
		{"schedule named as a path", post, "/api/schedules", yamlType, "id: upcoming\njob_id: hello\ntarget: {all: true}\nwhen: {per_pc: once}\n", 400, "id: 'upcoming' is a word of the API's paths", "id"},
		{"calendar with a bad day", put, "/api/calendars/x", yamlType, "id: x\ndays: [tomorrow]\n", 400, "days[0]: expected YYYY-MM-DD", "days[0]"},
		{"calendar of another id", put, "/api/calendars/x", yamlType, "id: y\ndays: []\n", 400, "id: the document is of calendar 'y', the path of 'x'", "id"},
		{"schedule with an unknown key", post, "/api/schedules", yamlType, schedule("when: {per_pc: {every: 1h}}\nretries: 3\n"), 400, "retries: unknown key", "retries"},
		{"enabling what is not there", post, "/api/schedules/none/enable", "", "", 404, "schedule 'none' not found", ""},
		{"disabling what is not there", post, "/api/schedules/none/disable?cascade=true&cascade_kill=true", "", "", 404, "schedule 'none' not found", ""},
		{"half a cascade", post, "/api/schedules/none/disable?cascade=half", "", "", 400, "cascade: expected true or false", ""},
		{"schedule with a param that the job does not have", post, "/api/schedules", yamlType, schedule("when: {cron: \"0 4 * * *\"}\nparams: {a: 1}\n"), 400, "params.a: the job has no such param", "params.a"},

		{"killing what is not there", post, "/api/executions/none/kill", "", "", 404, "execution 'none' not found", ""},
		{"cancelling what is not there", post, "/api/executions/none/cancel", jsonType, `{"reason":"x"}`, 404, "execution 'none' not found", ""},
		{"pausing what is not there", post, "/api/executions/none/pause", "", "", 404, "execution 'none' not found", ""},
		{"resuming what is not there", post, "/api/executions/none/resume", "", "", 404, "execution 'none' not found", ""},
		{"releasing what is not there", post, "/api/executions/none/release", jsonType, `{"wave":1}`, 404, "execution 'none' not found", ""},
		{"retrying what is not there", post, "/api/executions/none/retry", "", "", 404, "execution 'none' not found", ""},
		{"retry of what has not ended", post, "/api/executions/none/retry", jsonType, `{"states":["failed","running"]}`, 400, "states[1]: expected a state in which an endpoint has ended", "states[1]"},
		{"kill with an unknown key", post, "/api/executions/none/kill", jsonType, `{"because":"x"}`, 422, "because: unknown key", "because"},
		{"kill with a body that is no JSON", post, "/api/executions/none/kill", yamlType, `reason: x`, 415, "Content-Type: application/json", ""},
		{"kill with a long reason", post, "/api/executions/none/kill", jsonType, `{"reason":"` + big[:2001] + `"}`, 400, "reason: 2001 bytes are more than the limit of 2000", "reason"},
		{"release of the wrong type", post, "/api/executions/none/release", jsonType, `{"wave":"one"}`, 422, "wave: has the wrong type", "wave"},
		{"killing an illegal job", post, "/api/jobs/a%20b/kill", "", "", 400, "id:", "id"},
		{"revoking an illegal id", post, "/api/scripts/a%20b/revoke", "", "", 400, "cmd_id:", "cmd_id"},
		{"unrevoking with an unknown key", post, "/api/scripts/hello/unrevoke", jsonType, `{"why":"x"}`, 422, "why: unknown key", "why"},

		{"freeze with an unknown key", put, "/api/freeze", jsonType, `{"form":"2026-12-24"}`, 422, "form: unknown key", "form"},
		{"freeze with a bad bound", put, "/api/freeze", jsonType, `{"from":"soon"}`, 400, "from: expected YYYY-MM-DD", "from"},
		{"freeze backwards", put, "/api/freeze", jsonType, `{"from":"2026-12-24","until":"2026-12-23"}`, 400, "from must be before until", ""},
		{"freeze in another zone", put, "/api/freeze", jsonType, `{"tz":"Asia/Tokyo"}`, 422, "tz: expected local or utc", "tz"},
		{"freeze that is no JSON", put, "/api/freeze", yamlType, `from: 2026-12-24`, 415, "Content-Type: application/json", ""},
		{"malformed freeze", put, "/api/freeze", jsonType, `{`, 400, "not readable as JSON", ""},

		{"run nowhere", post, "/api/run", jsonType, `{"script":"x"}`, 400, "pc_id: invalid id: empty", "pc_id"},
		{"run nothing", post, "/api/run", jsonType, `{"pc_id":"pc-01","script":""}`, 400, "script: must not be empty", "script"},
		{"run in an unknown shell", post, "/api/run", jsonType, `{"pc_id":"pc-01","script":"x","shell":"fish"}`, 400, "shell: expected powershell, cmd, sh or pwsh", "shell"},
		{"run as somebody", post, "/api/run", jsonType, `{"pc_id":"pc-01","script":"x","run_as":"me"}`, 400, "run_as: expected system, user or system_gui", "run_as"},
		{"run for ever", post, "/api/run", jsonType, `{"pc_id":"pc-01","script":"x","timeout_secs":18446744073709551615}`, 400, "timeout_secs: 18446744073709551615 is more than the limit of 86400", "timeout_secs"},
		{"run under no UUID", post, "/api/run", jsonType, `{"pc_id":"pc-01","script":"x","exec_id":"mine"}`, 400, "exec_id: expected a UUID", "exec_id"},
		{"run with an unknown key", post, "/api/run", jsonType, `{"pc_id":"pc-01","script":"x","cwd":"/"}`, 422, "cwd: unknown key", "cwd"},
		{"run of a script too large", post, "/api/run", jsonType, `{"pc_id":"pc-01","script":"` + big[:1<<20+1] + `"}`, 400, "script: 1048577 bytes are more than the limit of 1048576", "script"},

		{"object with a bad name", get, "/api/script-objects/a%22b/1", "", "", 400, "name: expected printable ASCII", "name"},
		{"object with a slash in its version", post, "/api/script-objects/a/1%2F2", "multipart/form-data; boundary=x", "", 400, "version: expected printable ASCII", "version"},
		{"object that is not there", get, "/api/script-objects/a/1", "", "", 404, "script object 'a/1' not found", ""},
		{"deleting an object that never was", del, "/api/script-objects/a/1", "", "", 404, "script object 'a/1' not found", ""},
		{"object that is no form", post, "/api/script-objects/a/1", "application/octet-stream", "x", 400, "multipart/form-data", ""},
		{"object without a file", post, "/api/script-objects/a/1", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--x--\r\n", 400, "no part named `file`", ""},
		{"empty object", post, "/api/script-objects/a/1", "multipart/form-data; boundary=x", upload(""), 400, "file: must not be empty", "file"},
		{"object that is not UTF-8", post, "/api/script-objects/a/1", "multipart/form-data; boundary=x", upload("\xff"), 400, "file: must be UTF-8", "file"},
		{"object too large", post, "/api/script-objects/a/1", "multipart/form-data; boundary=x", upload(big + big + "x"), 413, "limit of 4194304 bytes", ""},
		{"object far too large", post, "/api/script-objects/a/1", "multipart/form-data; boundary=x", upload(big + big + big), 413, "limit of 4194304 bytes", ""},
		{"half an object", post, "/api/script-objects/a/1", "multipart/form-data; boundary=x", strings.TrimSuffix(upload("x"), "\r\n--x--\r\n"), 400, "could not be read", ""},

		{"groups with an illegal name", put, "/api/agents/pc-01/groups", jsonType, `{"groups":["ok","not ok"]}`, 400, "groups[1]", "groups[1]"},
		{"groups of the wrong type", put, "/api/agents/pc-01/groups", jsonType, `{"groups":"a"}`, 422, "groups: has the wrong type", "groups"},
		{"groups with an unknown key", put, "/api/agents/pc-01/groups", jsonType, `{"groups":[],"group":"a"}`, 422, "group: unknown key", "group"},
		{"no groups", put, "/api/agents/pc-01/groups", jsonType, `{}`, 422, "groups: missing", "groups"},
		{"blank group", post, "/api/agents/pc-01/groups", jsonType, `{"group":"  "}`, 400, "group: must not be blank", "group"},
		{"group of an illegal PC", post, "/api/agents/-pc/groups", jsonType, `{"group":"a"}`, 400, "pc_id:", "pc_id"},
		{"malformed group", post, "/api/agents/pc-01/groups", jsonType, `{"group"`, 400, "not readable as JSON", ""},
		{"empty group", post, "/api/agents/pc-01/groups", jsonType, ` `, 400, "empty", ""},

		{"bad limit", get, "/api/results?limit=", "", "", 400, "limit", ""},
		{"limit twice", get, "/api/executions?limit=1&limit=2", "", "", 400, "limit: given twice", ""},
		{"bad status", get, "/api/results?status=", "", "", 400, "status", ""},
		{"bad expression", get, "/api/results?stdout=%5B", "", "", 400, "stdout: not a regular expression", ""},
		{"bare date", get, "/api/results?since=2026-01-01", "", "", 400, "since", ""},
		{"bad sequence", get, "/api/events/stream?from=x", "", "", 400, "from", ""},
		{"wrong method", del, "/api/jobs", "", "", 405, "GET, HEAD, POST", ""},
		{"unknown path", get, "/api/nope", "", "", 404, "no such path", ""},
		{"trailing slash", get, "/api/jobs/", "", "", 404, "no such path", ""},
		{"doubled slash", get, "/api//jobs", "", "", 404, "no such path", ""},
	}
}

func TestRefusals(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	before := s.lastSeq()
	for _, x := range refusals() {
		t.Run(x.name, func(t *testing.T) {
			headers := []string{"Content-Type", x.contentType}
			got := s.do(x.method, x.path, x.body, headers...)
			require.Equal(t, x.status, got.status, got.text())
			require.Equal(t, "text/plain; charset=utf-8", got.header.Get("Content-Type"))
			require.Contains(t, got.text(), x.says)

			var p struct {
				Type, Title, Detail, Instance string
				Status                        int
				Errors                        []struct{ Path, Message string }
			}
			problem := s.do(x.method, x.path, x.body, append(headers, "Accept", "text/html, application/json;q=0.9")...)
			require.Equal(t, "application/problem+json", problem.header.Get("Content-Type"))
			require.NoError(t, json.Unmarshal(problem.body, &p))
			require.Equal(t, x.status, p.Status)
			require.Equal(t, got.text(), p.Detail)
			require.Equal(t, http.StatusText(x.status), p.Title)
			require.NotEmpty(t, p.Instance)
			if x.place != "" {
				require.NotEmpty(t, p.Errors)
				require.Equal(t, x.place, p.Errors[0].Path)
			}
			if x.status == http.StatusMethodNotAllowed {
				require.Equal(t, "GET, HEAD, POST", got.header.Get("Allow"))
			}
			require.Equal(t, before, s.lastSeq(), "something was written")
		})
	}
}

func TestLinesOfYAMLAreNamed(t *testing.T) {
	s := newSystem(t, parts{})
	var p struct{ Errors []struct{ Line int } }
	got := s.do(http.MethodPost, "/api/jobs", "id: x\nversion: \"1\"\nwobble: 1\nexecute: {shell: sh, script: x, timeout: 1s}\n",
		"Content-Type", yamlType, "Accept", "application/problem+json")
	require.NoError(t, json.Unmarshal(got.body, &p))
	require.Equal(t, 3, p.Errors[0].Line)
}

func TestTokenIsAlwaysDemanded(t *testing.T) {
	s := newSystem(t, parts{})
	for _, path := range []string{"/api/jobs", "/api/nope", "/api/events/stream", "/api/", "/api/version/x"} {
		for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer wrong", "bearer " + testToken, "Basic " + testToken, testToken} {
			got := s.do(http.MethodGet, path, "", "Authorization", authorization)
			require.Equal(t, http.StatusUnauthorized, got.status, "%s %q", path, authorization)
			require.NotContains(t, got.text(), testToken)
		}
	}
	require.Equal(t, http.StatusUnauthorized, s.do(http.MethodDelete, "/api/version/x", "", "Authorization", "").status)
	require.Equal(t, http.StatusUnauthorized, s.do(http.MethodPost, "/api/exec/hello", `{}`, "Authorization", "").status)
	require.Equal(t, http.StatusOK, s.do(http.MethodGet, "/api/jobs", "", "Authorization", "Bearer   "+testToken+" ").status)
	for _, path := range []string{"/health", "/healthz", "/readyz", "/metrics", "/", "/api/version"} {
		require.Equal(t, http.StatusOK, s.do(http.MethodGet, path, "", "Authorization", "").status, path)
	}
}

// TestBrokerAway runs in real time, as do all tests here that stop the broker: where both ends of a connection in memory
// wait for each other's lock, only a write deadline parts them, and a bubble's clock stands still while locks are waited for.
func TestBrokerAway(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.read("/api/jobs")
	before := s.lastSeq()
	s.broker.Shutdown()
	require.Eventually(t, func() bool { return !s.bus.Connected() }, 10*time.Second, time.Millisecond)
	for _, write := range []struct{ method, path, contentType, body string }{
		{http.MethodPost, "/api/exec/hello", "application/json", `{"target":{"all":true}}`},
		{http.MethodPost, "/api/jobs", yamlType, helloYAML},
		{http.MethodDelete, "/api/jobs/hello", "", ""},
		{http.MethodPost, "/api/schedules/x/enable", "", ""},
		{http.MethodPut, "/api/agents/pc-01/groups", "application/json", `{"groups":["a"]}`},
		{http.MethodPost, "/api/exec/hello?dry_run=true", "application/json", `{"target":{"all":true}}`},
		{http.MethodPost, "/api/executions/x/kill", "", ""},
		{http.MethodPost, "/api/executions/x/release", "", ""},
		{http.MethodPost, "/api/executions/x/retry", "", ""},
		{http.MethodPost, "/api/jobs/hello/kill", "", ""},
		{http.MethodPost, "/api/run", "application/json", `{"pc_id":"pc-01","script":"x"}`},
		{http.MethodPost, "/api/scripts/hello/revoke", "", ""},
		{http.MethodPut, "/api/freeze", "application/json", `{}`},
		{http.MethodDelete, "/api/freeze", "", ""},
		{http.MethodGet, "/api/script-objects", "", ""},
		{http.MethodGet, "/api/script-objects/a/1", "", ""},
		{http.MethodPost, "/api/script-objects/a/1", formType, upload("x")},
		{http.MethodDelete, "/api/script-objects/a/1", "", ""},
		{http.MethodGet, "/api/events/stream", "", ""},
	} {
		began := time.Now()
		got := s.do(write.method, write.path, write.body, "Content-Type", write.contentType)
		require.Equal(t, http.StatusServiceUnavailable, got.status, write.path)
		require.Contains(t, got.text(), "broker can't be reached")
		require.NotEmpty(t, got.header.Get("Retry-After"))
		require.Less(t, time.Since(began), time.Second, "refused at once")
	}
	require.Equal(t, http.StatusOK, s.do(http.MethodGet, "/api/jobs", "").status, "reads go on")
	require.Equal(t, http.StatusOK, s.do(http.MethodGet, "/api/agents", "").status)
	ready := s.do(http.MethodGet, "/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, ready.status)
	require.Contains(t, ready.text(), `"connected":false`)

	require.NoError(t, s.broker.Restart())
	require.Eventually(t, func() bool { return s.do(http.MethodGet, "/readyz", "").status == http.StatusOK }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, before, s.lastSeq())
	require.Equal(t, http.StatusOK, s.do(http.MethodPost, "/api/exec/hello", `{"target":{"all":true}}`).status)
}

func TestLogFull(t *testing.T) {
	br := bustest.Broker(t)
	b := bustest.Dial(t, br)
	limits := bustest.Limits()
	limits.LogBytes = 64 << 10
	require.NoError(t, b.Ensure(t.Context(), limits))
	s := &system{t: t, broker: br, bus: b, dir: t.TempDir()}
	s.project()
	s.client = s.serve(Deps{Bus: b})
	s.job()
	var last answer
	for range 1000 {
		if last = s.do(http.MethodPost, "/api/exec/hello", `{"target":{"all":true}}`); last.status != http.StatusOK {
			break
		}
	}
	before := s.lastSeq()
	require.Equal(t, http.StatusServiceUnavailable, last.status)
	require.Contains(t, last.text(), "the log is full")
	require.Equal(t, http.StatusServiceUnavailable, s.do(http.MethodPost, "/api/jobs", strings.Replace(helloYAML, "1.0.0", "2", 1), "Content-Type", yamlType).status)
	require.Equal(t, before, s.lastSeq())
	require.Equal(t, http.StatusOK, s.do(http.MethodGet, "/api/executions", "").status)
}

func TestNoReadModel(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	got := s.do(http.MethodGet, "/api/jobs", "")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Contains(t, got.text(), "no read model")
	require.NotEmpty(t, got.header.Get("Retry-After"))
	require.Equal(t, http.StatusServiceUnavailable, s.do(http.MethodDelete, "/api/jobs/hello", "").status)
	ready := s.do(http.MethodGet, "/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, ready.status)
	require.Contains(t, ready.text(), `"present":false`)
	e := s.exec("hello", `{"target":{"groups":["a"],"pcs":["pc-01","pc-01","pc-02"]}}`)
	require.Equal(t, 2, e.TargetCount, "writes are accepted; names alone are counted")
	require.Equal(t, []string{"commands.group.a", "commands.pc.pc-01", "commands.pc.pc-01", "commands.pc.pc-02"}, e.Subjects)
}

func TestMinSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, parts{})
		seq := s.job().sequence(t)
		got := s.read("/api/jobs/hello")
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, fmt.Sprint(seq), got.header.Get("Kanade-Applied-Sequence"))
		require.NotEmpty(t, got.header.Get("Kanade-Applied-At"))

		began := time.Now()
		behind := s.do(http.MethodGet, "/api/jobs", "", "Kanade-Min-Sequence", fmt.Sprint(seq+1))
		require.Equal(t, http.StatusServiceUnavailable, behind.status)
		require.Equal(t, "1", behind.header.Get("Retry-After"))
		require.Contains(t, behind.text(), "read model")
		require.InDelta(t, 5, time.Since(began).Seconds(), 0.1)

		var later sync.WaitGroup
		later.Go(func() {
			time.Sleep(3 * time.Second)
			s.append(events.AgentSeen{PCID: "pc-01", AgentVersion: "0.43.45", OSFamily: "linux"})
		})
		began = time.Now()
		require.Equal(t, http.StatusOK, s.do(http.MethodGet, "/api/jobs", "", "Kanade-Min-Sequence", fmt.Sprint(seq+1)).status)
		require.InDelta(t, 3, time.Since(began).Seconds(), 0.5)
		later.Wait()
		require.Equal(t, http.StatusBadRequest, s.do(http.MethodGet, "/api/jobs", "", "Kanade-Min-Sequence", "soon").status)
	})
}

func TestRunRefusesToBegin(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	for name, x := range map[string]struct {
		config Config
		says   string
	}{
		"no token":               {Config{Listen: "127.0.0.1:0"}, "KANADE_AUTH_STATIC_TOKEN"},
		"no token, public":       {Config{Listen: "0.0.0.0:0"}, "refuse to listen on 0.0.0.0:0"},
		"no token, all":          {Config{Listen: ":8080"}, "refuse to listen on :8080"},
		"two tokens":             {Config{Listen: "127.0.0.1:0", AuthToken: "a", AuthTokenFile: "b"}, "give one"},
		"token file missing":     {Config{Listen: "127.0.0.1:0", AuthTokenFile: empty + "x"}, "KANADE_AUTH_STATIC_TOKEN_FILE"},
		"token file empty":       {Config{Listen: "127.0.0.1:0", AuthTokenFile: empty}, "is empty"},
		"port in use":            {Config{Listen: taken.Addr().String(), AuthToken: "a"}, "in use by another process"},
		"not an address":         {Config{Listen: "nowhere", AuthToken: "a"}, "KANADE_API_LISTEN"},
		"broker's token missing": {Config{Listen: "127.0.0.1:0", AuthToken: "a", NATSTokenFile: empty + "x"}, "KANADE_NATS_TOKEN_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Run(t.Context(), x.config, Deps{Logger: bustest.Logger(t)})
			require.ErrorContains(t, err, x.says)
			require.ErrorContains(t, err, "start api")
		})
	}
}

func TestRunEndsWhileItWaitsForTheBroker(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.NoError(t, Run(ctx, Config{Listen: "127.0.0.1:0", NATSURL: "nats://127.0.0.1:1", AuthToken: "a"}, Deps{Logger: bustest.Logger(t)}))
}

// TestStartStop starts and stops the service at every moment of its life, ten at once. What it might leave behind shows
// when the broker has gone as well: a subscription that was cut off while it was made stays in the broker for some
// seconds.
func TestStartStop(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	br := bustest.Broker(t)
	b := bustest.Connect(t, br)
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(20_000))*time.Microsecond)
				err := Run(ctx, Config{AuthToken: testToken, ReadModelDir: dir}, Deps{Bus: b, Listener: newPipes(), Logger: bustest.Logger(t)})
				if err != nil {
					t.Errorf("run: %v", err)
				}
				cancel()
			}
		})
	}
	all.Wait()
}

func TestLoadOrCreateToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	tokens := make([]string, 20)
	var all sync.WaitGroup
	for i := range tokens {
		all.Go(func() {
			var err error
			if tokens[i], err = LoadOrCreateToken(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, token := range tokens {
		require.Len(t, token, 64)
		require.Equal(t, tokens[0], token)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)

	require.NoError(t, os.WriteFile(path, []byte(" mine \n"), 0o600))
	token, err := LoadOrCreateToken(path)
	require.NoError(t, err)
	require.Equal(t, "mine", token)
	_, err = LoadOrCreateToken(filepath.Join(path, "below"))
	require.Error(t, err)
}
