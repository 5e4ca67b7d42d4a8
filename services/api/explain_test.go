package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// rollout makes an exec of two waves: pc-01 and pc-02 in the first, which is out, pc-03 in the second, which waits for a
// person; pc-04 is left out.
func (s *system) rollout() (execID string, run func(pc string) events.Run) {
	s.t.Helper()
	s.job()
	e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	at, two := time.Now().UTC(), 2
	s.append(events.ExecPlanned{
		ExecID: e.ExecID, DeadlineAt: at.Add(time.Hour), ExpiresAt: at.Add(2 * time.Hour), MaxParallel: &two,
		Waves: []events.PlannedWave{
			{DueAt: at, Label: "2 named", Expected: []string{"pc-01", "pc-02"}}, {DueAt: at, DelaySecs: 60, Pause: true, Expected: []string{"pc-03"}},
		},
		Skipped: []events.SkippedPC{{PCID: "pc-04", Reason: events.SkipReasonShell}},
	})
	s.append(events.WaveReleased{ExecID: e.ExecID})
	s.append(events.WaveDispatched{ExecID: e.ExecID, Commands: 2})
	return e.ExecID, func(pc string) events.Run {
		request := events.DeriveID(e.ExecID, "request", pc)
		return events.Run{PCID: pc, ExecID: e.ExecID, RequestID: request, ResultID: events.ResultID(request, pc), JobID: "hello", Version: "1.0.0"}
	}
}

func TestExecutionStoppedAndLate(t *testing.T) {
	s := newSystem(t, parts{})
	exec, run := s.rollout()
	execution := func() map[string]any {
		t.Helper()
		var detail struct{ Execution map[string]any }
		s.read("/api/executions/"+exec).into(t, &detail)
		return detail.Execution
	}
	s.append(events.ExecPaused{ExecID: exec})
	e := execution()
	require.Equal(t, map[string]any{"max_failures": nil, "max_parallel": 2.0}, e["budget"])
	require.Equal(t, []any{true, 2.0, 1.0, nil, nil, 0.0}, []any{e["paused"], e["waves"], e["released"], e["stopped"], e["retry_of"], e["ended_sequence"]})

	three := 3
	s.run(run("pc-01"), events.StateFailed, &three, events.Output{Text: "hello\n", Bytes: 6})
	killed := s.append(events.ExecKilled{ExecID: exec, Reason: "fills the disk"})
	ended := s.append(events.ExecClosed{ExecID: exec, Outcome: events.OutcomeKilled})
	s.run(run("pc-02"), events.StateKilled, nil, events.Output{})
	e = execution()
	require.Equal(t, "killed", e["outcome"])
	require.EqualValues(t, ended, e["ended_sequence"])
	stopped := e["stopped"].(map[string]any)
	require.NotEmpty(t, stopped["at"])
	delete(stopped, "at")
	require.Equal(t, map[string]any{"by": "killed", "actor": "service:test", "reason": "fills the disk", "sequence": float64(killed)}, stopped)

	var listed []map[string]any
	s.read("/api/executions").into(t, &listed)
	require.Equal(t, e["stopped"].(map[string]any)["by"], listed[0]["stopped"].(map[string]any)["by"])

	var targets []map[string]any
	s.read("/api/executions/"+exec+"/targets").into(t, &targets)
	have := map[any][]any{}
	for _, x := range targets {
		have[x["pc_id"]] = []any{x["state"], x["reason"], x["late"]}
	}
	require.Equal(t, map[any][]any{
		"pc-01": {"failed", nil, false}, "pc-02": {"killed", nil, true},
		"pc-03": {"skipped", events.SkipReasonKilled, false}, "pc-04": {"skipped", events.SkipReasonShell, false},
	}, have)
}

func TestWavesOfAnExecution(t *testing.T) {
	s := newSystem(t, parts{})
	exec, _ := s.rollout()
	var waves []map[string]any
	s.read("/api/executions/"+exec+"/waves").into(t, &waves)
	require.Len(t, waves, 2)
	require.Equal(t, []any{"sent", "2 named", 2.0, 2.0, 2.0, nil}, []any{waves[0]["state"], waves[0]["label"], waves[0]["size"], waves[0]["released"], waves[0]["dispatched"], waves[0]["advanced"]})
	require.Equal(t, map[string]any{"expected": map[string]any{"sent": 2.0}, "others": map[string]any{}}, waves[0]["totals"])
	require.NotNil(t, waves[0]["released_at"])
	require.Equal(t, []any{"paused", true, 60.0, nil, nil}, []any{waves[1]["state"], waves[1]["pause"], waves[1]["delay_secs"], waves[1]["released_at"], waves[1]["dispatched_at"]})
	s.append(events.WaveAdvanced{ExecID: exec, Wave: 1, Reason: "looks good"})
	s.read("/api/executions/"+exec+"/waves").into(t, &waves)
	require.Equal(t, "pending", waves[1]["state"])
	require.Equal(t, "looks good", waves[1]["advanced"].(map[string]any)["reason"])
	require.Equal(t, http.StatusNotFound, s.read("/api/executions/nope/waves").status)
}

func TestFailuresOfAnExecution(t *testing.T) {
	s := newSystem(t, parts{})
	exec, run := s.rollout()
	three, text := 3, strings.Repeat("é", 2000)
	s.run(run("pc-01"), events.StateFailed, &three, events.Output{Text: text, Bytes: int64(len(text))})
	s.run(run("pc-02"), events.StateFailed, &three, events.Output{Text: text, Bytes: int64(len(text))})
	s.run(run("pc-03"), events.StateTimedOut, nil, events.Output{})
	var groups []map[string]any
	s.read("/api/executions/"+exec+"/failures").into(t, &groups)
	require.Equal(t, []map[string]any{
		{"state": "failed", "exit_code": 3.0, "reason": "", "stdout": strings.Repeat("é", 1024), "stderr": "", "count": 2.0, "pcs": []any{"pc-01", "pc-02"}},
		{"state": "timed_out", "exit_code": nil, "reason": "", "stdout": "", "stderr": "", "count": 1.0, "pcs": []any{"pc-03"}},
	}, groups)
	s.read("/api/executions/"+exec+"/failures?limit=1").into(t, &groups)
	require.Len(t, groups, 1)
	require.Equal(t, http.StatusBadRequest, s.read("/api/executions/"+exec+"/failures?limit=x").status)
	require.Equal(t, http.StatusNotFound, s.read("/api/executions/nope/failures").status)
}

func TestExplainTarget(t *testing.T) {
	s := newSystem(t, parts{})
	exec, run := s.rollout()
	explain := func(pc string) map[string]any {
		t.Helper()
		var x map[string]any
		s.read("/api/executions/"+exec+"/targets/"+pc+"/explain").into(t, &x)
		require.Equal(t, []any{exec, pc}, []any{x["exec_id"], x["pc_id"]})
		return x
	}
	facts := func(x map[string]any) []string {
		var names []string
		for _, p := range x["steps"].([]any) {
			p := p.(map[string]any)
			require.NotEmpty(t, p["text"])
			require.NotEmpty(t, p["at"])
			names = append(names, p["fact"].(string))
		}
		return names
	}
	require.Equal(t, "waits_for_release", explain("pc-03")["reason"])
	require.Equal(t, []string{"exec.requested.v1", "exec.planned.v1"}, facts(explain("pc-03")))
	require.Equal(t, "not_heard", explain("pc-01")["reason"])
	require.Contains(t, explain("pc-01")["summary"], "It was never heard.")
	zero := 0
	s.run(run("pc-01"), events.StateSucceeded, &zero, events.Output{})
	x := explain("pc-01")
	require.Equal(t, []any{"succeeded", ""}, []any{x["state"], x["reason"]})
	require.Contains(t, x["summary"], "succeeded with exit code 0.")
	require.Equal(t, []string{"exec.requested.v1", "exec.planned.v1", "exec.wave-released.v1", "exec.wave-dispatched.v1", "run.finished.v1"}, facts(x))
	s.append(events.RunSkipped{Run: run("pc-02"), SkippedAt: time.Now().UTC(), Code: 126, Reason: events.SkipReasonRevoked, Detail: "job hello is revoked"})
	require.Contains(t, explain("pc-02")["summary"], "(job hello is revoked)")
	require.Equal(t, []any{"skipped", events.SkipReasonShell}, []any{explain("pc-04")["state"], explain("pc-04")["reason"]})
	require.Equal(t, []any{"", "not_in_plan"}, []any{explain("pc-99")["state"], explain("pc-99")["reason"]})
	require.Equal(t, http.StatusNotFound, s.read("/api/executions/nope/targets/pc-01/explain").status)
	require.Equal(t, http.StatusBadRequest, s.read("/api/executions/"+exec+"/targets/-/explain").status)
}
