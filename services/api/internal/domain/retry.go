package domain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// Retry is what POST /api/executions/{id}/retry asks for.
type Retry struct {
	// States are those of the endpoints that are tried again; none: whatever ended without success, but not the endpoints
	// that the plan left out because they can't run it.
	States []events.TargetState
	// Reason is what the operator gave for it; empty for none.
	Reason string
	// Pinned runs the script of the exec that is retried; otherwise it is the job as it is now.
	Pinned bool
}

// Original tells whether the script of the exec runs again, rather than the job as it is now: when that is asked for, when
// the job is gone, and for a run, which never had one.
func (r Retry) Original(met events.ExecRequested, job Job) bool {
	return r.Pinned || met.JobSequence == 0 || job.Saved == nil
}

// RetryOriginal decides the fact that asks for the script of an exec to be run again, as it was resolved then. x has the
// plan. Whether a script object still has the bytes that were pinned is for the caller to see.
func RetryOriginal(met events.ExecRequested, x ExecRequest) (events.ExecRequested, error) {
	plan, err := x.Plan.Document()
	if err != nil {
		return events.ExecRequested{}, fmt.Errorf("retry exec %s: %w", met.ExecID, err)
	}
	e := events.ExecRequested{
		ExecID: x.ExecID, JobID: met.JobID, Version: met.Version, JobSequence: met.JobSequence, JobHash: met.JobHash, Script: met.Script,
		Plan: plan, Retry: x.Plan.Retry.Resolve(), RetryOf: met.ExecID, Reason: x.Reason, Origin: x.Origin, TargetCount: new(len(x.Plan.Target.PCs)),
	}
	if x.Key != "" {
		e.IdempotencyKey, e.RequestHash = x.Key, x.BodyHash
	}
	return e, nil
}

// retriedStates are what a retry means when it names no states.
func retriedStates() []events.TargetState {
	return []events.TargetState{
		events.StateFailed, events.StateTimedOut, events.StateKilled, events.StateUnknown, events.StateExpired, events.StateSkipped,
	}
}

// Check refuses states that are none, and those of endpoints that have not ended: they would run it twice.
func (r Retry) Check() error {
	for i, s := range r.States {
		if !slices.Contains(events.TargetStates(), s) || !s.Final() {
			return RefuseField(Invalid, "states["+strconv.Itoa(i)+"]", "expected a state in which an endpoint has ended (%s or succeeded), got %q", words(retriedStates()), s)
		}
	}
	return nil
}

// Takes tells whether an endpoint in that state is tried again.
func (r Retry) Takes(t events.Target) bool {
	if len(r.States) > 0 {
		return slices.Contains(r.States, t.State)
	}
	return slices.Contains(retriedStates(), t.State) && !plannedOut(t)
}

// Wanted are the states that endpoints must be asked for.
func (r Retry) Wanted() []events.TargetState {
	if len(r.States) > 0 {
		return r.States
	}
	return retriedStates()
}

// plannedOut tells whether the plan has left the endpoint out; what was stopped before it could say anything was not.
func plannedOut(t events.Target) bool {
	stops := []string{events.SkipReasonKilled, events.SkipReasonCancelled, events.SkipReasonHalted}
	return t.State == events.StateSkipped && t.ResultID == "" && !slices.Contains(stops, t.Reason)
}

// Plan is that of the exec that tries these endpoints again: that of the one before, for them alone, all at once and
// without its deadline, which was a moment of then.
func (r Retry) Plan(met events.ExecRequested, pcs []string) (*catalog.Plan, error) {
	if len(pcs) == 0 {
		return nil, Refuse(Conflict, "execution '%s' has no endpoint to try again: none is %s", met.ExecID, words(r.Wanted()))
	}
	plan, err := catalog.ParsePlanDocument(met.Plan)
	if err != nil {
		return nil, fmt.Errorf("retry exec %s: %w", met.ExecID, err)
	}
	plan.Target = catalog.Target{Groups: []string{}, PCs: pcs}
	plan.Rollout, plan.DeadlineAt, plan.RequireTargets = nil, nil, false
	if plan.Retry == nil && met.Retry != nil {
		backoff := catalog.Duration(strconv.FormatUint(met.Retry.BackoffSecs, 10) + "s")
		plan.Retry = &catalog.Retry{Max: met.Retry.Max, Backoff: backoff}
	}
	if err := plan.Validate(); err != nil {
		return nil, refuseCatalog(err, Unprocessable)
	}
	return plan, nil
}

func words(states []events.TargetState) string {
	list := make([]string, len(states))
	for i, s := range states {
		list[i] = string(s)
	}
	return strings.Join(list, ", ")
}
