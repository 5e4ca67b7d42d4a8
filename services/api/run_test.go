package api

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// endpointThat follows the log as scheduler and agent would, and does something with each exec that is requested.
func (s *system) endpointThat(does func(e events.ExecRequested)) {
	ctx, stop := context.WithCancel(context.Background())
	ended, from := make(chan error, 1), s.lastSeq()+1
	go func() {
		ended <- s.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog, From: from, Name: "endpoint"}, func(_ context.Context, batch []bus.RawMsg) error {
			for _, m := range batch {
				stored, err := m.Stored()
				if err != nil {
					return err
				}
				p, err := stored.Payload()
				if err != nil {
					return err
				}
				if e, ok := p.(events.ExecRequested); ok {
					does(e)
				}
			}
			return nil
		})
	}()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
}

func TestRun(t *testing.T) {
	s := newSystem(t, parts{})
	requests := make(chan events.ExecRequested, 10)
	s.endpointThat(func(e events.ExecRequested) {
		requests <- e
		s.plan(e.ExecID, "pc-01")
		code := 4
		run := runOf(execAnswer{ExecID: e.ExecID, JobID: e.JobID, Version: e.Version}, "pc-01")
		if e.Script.Body == "stuck" {
			s.run(run, events.StateTimedOut, nil, events.Output{})
			return
		}
		s.run(run, events.StateFailed, &code, events.Output{Text: "adhoc\n", Bytes: 6})
	})
	var got map[string]any
	first := s.write(http.MethodPost, "/api/run", `{"pc_id":"pc-01","script":"echo adhoc","shell":"cmd","timeout_secs":5,"run_as":"user","jitter_secs":2}`, "Idempotency-Key", "k", "X-Kanade-Source", "cli")
	first.into(t, &got)
	e := <-requests
	require.Equal(t, "adhoc-run", e.JobID)
	require.Equal(t, "0.0.0", e.Version)
	require.Equal(t, "cli", e.Origin)
	require.Equal(t, events.Script{Shell: "cmd", Body: "echo adhoc", TimeoutSecs: 5, RunAs: "user"}, e.Script)
	require.InDelta(t, 17, time.Until(*e.DeadlineAt).Seconds(), 2)
	require.Contains(t, string(e.Plan), `"target":{"groups":[],"pcs":["pc-01"],"all":false},"jitter":"2s","deadline_at":"`)
	for key, want := range map[string]any{
		"pc_id": "pc-01", "exec_id": e.ExecID, "exit_code": 4.0, "stdout": "adhoc\n", "stderr": "", "manifest_id": "adhoc-run", "state": "failed",
	} {
		require.Equal(t, want, got[key], key)
	}
	for _, key := range []string{"result_id", "request_id", "started_at", "finished_at"} {
		require.NotEmpty(t, got[key], key)
	}
	require.NotContains(t, got, "stdout_object")
	again := s.write(http.MethodPost, "/api/run", `{"pc_id":"pc-01","script":"echo adhoc","shell":"cmd","timeout_secs":5,"run_as":"user","jitter_secs":2}`, "Idempotency-Key", "k")
	require.Equal(t, first.text(), again.text())
	require.Equal(t, first.sequence(t), again.sequence(t))

	id := uuid.NewString()
	s.write(http.MethodPost, "/api/run", `{"pc_id":"pc-01","script":"stuck","job_id":"`+id+`"}`).into(t, &got)
	e = <-requests
	require.Equal(t, id, e.ExecID)
	require.Equal(t, events.Script{Shell: "powershell", Body: "stuck", TimeoutSecs: 60, RunAs: "system"}, e.Script)
	require.Equal(t, -1.0, got["exit_code"])
	require.Equal(t, "timed_out", got["state"])
	before := s.lastSeq()
	taken := s.do(http.MethodPost, "/api/run", `{"pc_id":"pc-01","script":"stuck","exec_id":"`+id+`"}`)
	require.Equal(t, http.StatusConflict, taken.status, taken.text())
	require.Contains(t, taken.text(), "is there already")
	require.Equal(t, before, s.lastSeq())
	require.Empty(t, requests)
}

func TestRunThatIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, parts{})
		began := time.Now()
		late := s.do(http.MethodPost, "/api/run", `{"pc_id":"ghost","script":"x","shell":"sh","timeout_secs":1}`)
		require.Equal(t, http.StatusRequestTimeout, late.status)
		require.Contains(t, late.text(), "timeout waiting for the result of execution ")
		require.InDelta(t, 11, time.Since(began).Seconds(), 0.5)
		require.Equal(t, uint64(1), s.lastSeq(), "it was asked for, and that stays")

		s.endpointThat(func(e events.ExecRequested) {
			s.append(events.ExecPlanned{ExecID: e.ExecID, Skipped: []events.SkippedPC{{PCID: "old", Reason: events.SkipReasonShell}}})
		})
		unable := s.do(http.MethodPost, "/api/run", `{"pc_id":"old","script":"x","shell":"sh"}`)
		require.Equal(t, http.StatusConflict, unable.status)
		require.Contains(t, unable.text(), "old does not run it: skipped shell_not_supported")
	})
}
