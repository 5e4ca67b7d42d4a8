package api

import (
	"encoding/base64"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
)

func TestDryRun(t *testing.T) {
	s := newSystem(t, parts{})
	s.write(http.MethodPost, "/api/jobs", "id: hello\nversion: \"1\"\nexecute: {shell: cmd, script: x, timeout: 60s}\n", "Content-Type", yamlType)
	for _, pc := range []string{"pc-01", "pc-02", "pc-03", "pc-04"} {
		s.endpoint(pc)
	}
	s.append(events.AgentSeen{PCID: "pc-05", AgentVersion: "1.0.0", OSFamily: "linux"})
	s.append(events.AgentSeen{PCID: "pc-06", AgentVersion: "0.43.45", OSFamily: "windows"}) // away
	s.write(http.MethodPost, "/api/agents/pc-02/groups", `{"group":"canary"}`)
	before := s.lastSeq()
	dry := func(plan string) (answer map[string]any) {
		s.do(http.MethodPost, "/api/exec/hello?dry_run=true", plan, "Kanade-Min-Sequence", fmt.Sprint(s.seen.Load())).into(t, &answer)
		return answer
	}
	got := dry(`{"target":{"all":true},"rollout":{"waves":[{"group":"canary","delay":"0s"},{"percent":50,"after":"previous","delay":"10m"},{"percent":100,"pause":true}]},` +
		`"max_failures":"20%","max_parallel":2,"expires_after":"1d"}`)
	require.Equal(t, true, got["dry_run"])
	require.Equal(t, "hello", got["job_id"])
	require.Equal(t, "1", got["version"])
	require.Equal(t, 6.0, got["target_count"], "those that are left out are counted")
	require.Equal(t, []any{map[string]any{"pc_id": "pc-05", "reason": "shell_not_supported"}}, got["skipped"])
	require.Equal(t, 0.0, got["max_failures"])
	require.Equal(t, 2.0, got["max_parallel"])
	waves := got["waves"].([]any)
	require.Len(t, waves, 3)
	first := waves[0].(map[string]any)
	require.NotEmpty(t, first["due_at"])
	require.NotEmpty(t, first["deadline_at"])
	delete(first, "due_at")
	delete(first, "deadline_at")
	require.Equal(t, map[string]any{
		"wave": 0.0, "label": "group canary", "after": false, "delay_secs": 0.0, "pause": false,
		"expected": []any{"pc-02"}, "waiting": []any{}, "subjects": []any{"commands.pc.pc-02"},
	}, first)
	second := waves[1].(map[string]any)
	require.Equal(t, []any{"pc-01", "pc-03", "pc-04"}, second["expected"])
	require.Equal(t, 600.0, second["delay_secs"])
	require.Equal(t, []any{"pc-06"}, waves[2].(map[string]any)["waiting"])
	require.Equal(t, true, waves[2].(map[string]any)["pause"])

	named := dry(`{"target":{"pcs":["ghost"]},"require_targets":true}`)
	require.Equal(t, []any{"ghost"}, named["waves"].([]any)[0].(map[string]any)["expected"], "who is named is waited for")
	nobody := dry(`{"target":{"groups":["nobody"]}}`)
	require.Equal(t, []any{}, nobody["waves"])
	require.Equal(t, []any{}, nobody["skipped"])
	require.Nil(t, nobody["max_failures"])
	unable := s.do(http.MethodPost, "/api/exec/hello?dry_run=true", `{"target":{"pcs":["pc-05"]},"require_targets":true}`)
	require.Equal(t, http.StatusUnprocessableEntity, unable.status)
	require.Contains(t, unable.text(), "no endpoint of the target can run it: 1 would be skipped, pc-05 first (shell_not_supported)")
	require.Equal(t, before, s.lastSeq(), "nothing is written")
	require.Equal(t, false, got["revoked"])
	s.write(http.MethodPost, "/api/scripts/hello/revoke", "")
	require.Equal(t, true, dry(`{"target":{"pcs":["pc-01"]}}`)["revoked"])
}

// TestDryRunNamesTheCommands: what is sent is said in full.
func TestDryRunNamesTheCommands(t *testing.T) {
	s := newSystem(t, parts{})
	s.upload("tool/1.0", tool)
	job := func(script string) {
		s.write(http.MethodPost, "/api/jobs", `id: full
version: "2"
execute:
  shell: pwsh
  `+script+`
  timeout: 90s
  run_as: user
  cwd: /tmp
  env: {COLOR: red}
  args: [-v]
  stdin: "yes"
  success_codes: [0, 3010]
  params: {count: {type: integer, default: 3}}
staleness: {mode: strict, max_cache_age: 5m}
`, "Content-Type", yamlType)
	}
	deadline := time.Now().Add(30 * 24 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	plan := `{"target":{"pcs":["a"]},"jitter":"5m","deadline_at":"` + deadline + `","retry":{"max":2,"backoff":"30s"}}`
	job("script: x")
	want := map[string]any{
		"id": "full", "version": "2", "shell": "pwsh", "script": "x", "timeout_secs": 90.0, "jitter_secs": 300.0, "run_as": "user", "cwd": "/tmp",
		"env": map[string]any{"COLOR": "red", "count": "3"}, "args": []any{"-v"}, "stdin": "yes", "success_codes": []any{0.0, 3010.0},
		"retry": map[string]any{"max": 2.0, "backoff_secs": 30.0}, "staleness": map[string]any{"mode": "strict", "max_cache_age": "300s"},
	}
	var got map[string]any
	s.do(http.MethodPost, "/api/exec/full?dry_run=true", plan).into(t, &got)
	require.Equal(t, want, got["command"])
	require.Equal(t, deadline, got["waves"].([]any)[0].(map[string]any)["deadline_at"])
	job("script_object: tool/1.0")
	want["script"], want["script_object"], want["script_object_sha256"] = "", "tool/1.0", toolHex
	s.do(http.MethodPost, "/api/exec/full?dry_run=true", plan).into(t, &got)
	require.Equal(t, want, got["command"])
	s.do(http.MethodPost, "/api/exec/full?dry_run=true", `{"target":{"groups":["nobody"]}}`).into(t, &got)
	require.Nil(t, got["command"], "nothing goes out")
}

// TestExecInFull: everything that a plan and a manifest can say is in the request, resolved.
func TestExecInFull(t *testing.T) {
	s := newSystem(t, parts{})
	s.write(http.MethodPost, "/api/jobs", `id: full
version: "2"
execute:
  shell: pwsh
  script: x
  timeout: 90s
  run_as: user
  cwd: /tmp
  env: {COLOR: red}
  args: [-v]
  stdin: "yes"
  success_codes: [0, 3010]
  params: {count: {type: integer, default: 3}, name: {type: string}}
staleness: {mode: strict, max_cache_age: 5m}
`, "Content-Type", yamlType)
	body := `{"target":{"groups":["g"]},"jitter":"5m","deadline_at":"2030-01-31T08:00:00Z","expires_after":"2d","max_failures":3,"max_parallel":"10%","params":{"name":"n"},"retry":{"max":2,"backoff":"30s"}}`
	e := s.requested(s.exec("full", body).Sequence)
	require.Equal(t, events.Script{
		Shell: "pwsh", Body: "x", TimeoutSecs: 90, RunAs: "user", Cwd: "/tmp", Env: map[string]string{"COLOR": "red", "count": "3", "name": "n"},
		Args: []string{"-v"}, Stdin: "yes", SuccessCodes: []int{0, 3010}, Staleness: "strict", MaxCacheAge: "5m",
	}, e.Script)
	require.Equal(t, &events.Retry{Max: 2, BackoffSecs: 30}, e.Retry)
	require.Equal(t, "2030-01-31T08:00:00Z", e.DeadlineAt.Format("2006-01-02T15:04:05Z07:00"))
	plan, err := catalog.ParsePlanDocument(e.Plan)
	require.NoError(t, err)
	require.Equal(t, "10%", plan.MaxParallel.String())
	missing := s.do(http.MethodPost, "/api/exec/full", `{"target":{"all":true}}`)
	require.Equal(t, http.StatusBadRequest, missing.status)
	require.Contains(t, missing.text(), "params.name: missing: the param has no default")
}

// namesOf is the body of a plan that names so many endpoints.
func namesOf(n int, name func(i int) string) string {
	var body strings.Builder
	body.WriteString(`{"target":{"pcs":[`)
	for i := range n {
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteString(`"` + name(i) + `"`)
	}
	body.WriteString(`]}}`)
	return body.String()
}

// TestExecToAHundredThousand: as many endpoints as a plan may name, with names as long as they may be, fit a request and
// a message of the log, and so does their plan. Names that do not shrink are refused with the limit.
func TestExecToAHundredThousand(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	for name, of := range map[string]func(i int) string{
		"short": func(i int) string { return fmt.Sprintf("pc-%012d", i*7919%1_000_000_007) },
		"long": func(i int) string {
			return fmt.Sprintf("desktop-%06d.floor-%02d.site-%03d.europe.example-corporation.internal", i*7919%1_000_003, i%40, i%500)
		},
		"longest": func(i int) string {
			return fmt.Sprintf("%07d-%s", i*7919%1_000_003, strings.Repeat("y", catalog.MaxID-8))
		},
	} {
		body := namesOf(catalog.MaxPlanPCs, of)
		e := s.exec("hello", body)
		require.Equal(t, catalog.MaxPlanPCs, e.TargetCount, name)
		x := s.requested(e.Sequence)
		plan, err := catalog.ParsePlanDocument(x.Plan)
		require.NoError(t, err)
		require.Len(t, plan.Target.PCs, catalog.MaxPlanPCs)
		planned, err := events.New(fanout.Plan(x, plan, emptyFleet{}, time.Now()), events.Meta{ID: "x", Source: "/kanade/test", Time: time.Now()})
		require.NoError(t, err)
		_, stored, err := planned.Encode()
		require.NoError(t, err)
		require.Less(t, len(stored), events.MaxPayload, name)
	}
	r := rand.New(rand.NewPCG(1, 2))
	before := s.lastSeq()
	body := namesOf(48_000, func(int) string {
		var drawn [94]byte
		for i := range drawn {
			drawn[i] = byte(r.Uint32())
		}
		return "p" + base64.RawURLEncoding.EncodeToString(drawn[:])
	})
	require.Less(t, len(body), catalog.MaxPlan)
	refused := s.do(http.MethodPost, "/api/exec/hello", body)
	require.Equal(t, http.StatusRequestEntityTooLarge, refused.status)
	require.Contains(t, refused.text(), "larger than the broker's limit of 4194304 bytes for one message")
	require.Equal(t, before, s.lastSeq())
}

type emptyFleet struct{}

func (emptyFleet) Endpoint(string) (fanout.Endpoint, bool) { return fanout.Endpoint{}, false }
func (emptyFleet) Endpoints() iter.Seq[fanout.Endpoint]    { return func(func(fanout.Endpoint) bool) {} }
