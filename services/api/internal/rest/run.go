package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// runPoll is how often the read model is asked for the end of a run: what a person who waits does not feel.
const runPoll = 100 * time.Millisecond

// postRun runs a script on one endpoint and answers its result. It is an exec like any other, of the job adhoc-run, and
// goes out as all of them do; the request is held until its end is in the read model.
func (s *server) postRun(w http.ResponseWriter, r *http.Request, route string) error {
	body, err := readJSONBody(w, r)
	if err != nil {
		return err
	}
	var sent struct {
		PCID        string  `json:"pc_id"`
		Script      string  `json:"script"`
		Shell       string  `json:"shell"`
		TimeoutSecs *uint64 `json:"timeout_secs"`
		ExecID      string  `json:"exec_id"`
		JobID       string  `json:"job_id"`
		JitterSecs  *uint64 `json:"jitter_secs"`
		RunAs       string  `json:"run_as"`
	}
	if err := decodeJSON(body, &sent); err != nil {
		return err
	}
	execID, err := domain.RunID(sent.ExecID, sent.JobID)
	if err != nil {
		return err
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	if execID != "" && c.Key != "" {
		return domain.RefuseField(domain.Unprocessable, "exec_id",
			"an Idempotency-Key makes the id of its exec, so that it stands for one exec: give one of the two")
	}
	run := domain.Run{
		PCID: sent.PCID, Script: sent.Script, Shell: sent.Shell, RunAs: sent.RunAs, TimeoutSecs: sent.TimeoutSecs, JitterSecs: sent.JitterSecs,
	}
	e, seq, err := s.journal.RequestRun(r.Context(), c, execID, run)
	if err != nil {
		return err
	}
	result, err := s.awaitRun(r.Context(), e.ExecID, run)
	if err != nil {
		return err
	}
	written(w, seq)
	return writeJSON(w, execResultOf(result))
}

// execResult is a result in the wire's words.
type execResult struct {
	ResultID     string  `json:"result_id"`
	RequestID    string  `json:"request_id"`
	ExecID       string  `json:"exec_id"`
	PCID         string  `json:"pc_id"`
	ExitCode     int     `json:"exit_code"`
	Stdout       string  `json:"stdout"`
	Stderr       string  `json:"stderr"`
	StartedAt    instant `json:"started_at"`
	FinishedAt   instant `json:"finished_at"`
	StdoutObject string  `json:"stdout_object,omitempty"`
	StderrObject string  `json:"stderr_object,omitempty"`
	ManifestID   string  `json:"manifest_id"`
	// State and Reason say what the exit code alone does not.
	State  events.TargetState `json:"state"`
	Reason string             `json:"reason,omitempty"`
}

// endedByForce is the exit code of a run that did not end by itself.
const endedByForce = -1

func execResultOf(x readmodel.Result) execResult {
	code := endedByForce
	if x.ExitCode != nil {
		code = *x.ExitCode
	}
	return execResult{
		ResultID: x.ResultID, RequestID: x.RequestID, ExecID: x.ExecID, PCID: x.PCID, ExitCode: code,
		Stdout: x.Stdout.Text, Stderr: x.Stderr.Text, StartedAt: instant(x.StartedAt), FinishedAt: instant(x.FinishedAt),
		StdoutObject: x.Stdout.Object, StderrObject: x.Stderr.Object, ManifestID: x.JobID, State: x.State, Reason: x.Reason,
	}
}

// awaitRun waits for the end of a run of one endpoint.
func (s *server) awaitRun(ctx context.Context, execID string, run domain.Run) (readmodel.Result, error) {
	over := time.NewTimer(run.Wait())
	defer over.Stop()
	tick := time.NewTicker(runPoll)
	defer tick.Stop()
	for {
		result, done, err := s.runEnd(ctx, execID, run.PCID)
		if done || err != nil {
			return result, err
		}
		select {
		case <-tick.C:
		case <-over.C:
			return result, fail(http.StatusRequestTimeout, fmt.Sprintf(
				"timeout waiting for the result of execution %s on %s; should it come, GET /api/executions/%s has it", execID, run.PCID, execID))
		case <-ctx.Done():
			return result, ctx.Err()
		case <-s.Stopping:
			return result, fail(http.StatusServiceUnavailable, fmt.Sprintf(
				"the API is being stopped; execution %s goes on, GET /api/executions/%s has its result", execID, execID))
		}
	}
}

// runEnd is the result of a run that has ended. A read model that is away is waited for.
func (s *server) runEnd(ctx context.Context, execID, pcID string) (readmodel.Result, bool, error) {
	t, err := s.Reader.Target(ctx, execID, pcID)
	switch {
	case errors.Is(err, context.Canceled):
		return readmodel.Result{}, false, err
	case err != nil || !t.State.Final():
		return readmodel.Result{}, false, nil
	case t.ResultID == "":
		return readmodel.Result{}, false, domain.Refuse(domain.Conflict, "%s does not run it: %s %s (execution %s)", pcID, t.State, t.Reason, execID)
	}
	result, err := s.Reader.Result(ctx, t.ResultID)
	return result, err == nil, nil
}
