package runner

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"kanade/libs/events"
	"kanade/services/agent/internal/capture"
	"kanade/services/agent/internal/domain"
	"kanade/services/agent/internal/ledger"
	"kanade/services/agent/internal/script"
)

// askAgain is the pause before the broker is asked again for what it could not say.
const askAgain = 5 * time.Second

// outputs are the two streams of a run, and the files that go with them.
type outputs struct {
	stdout, stderr events.Output
	uploads        []domain.Upload
}

// carryOut takes one command from the queue as far as it comes: to its end, or back into the queue.
func (r *Runner) carryOut(ctx context.Context, t task) error {
	e, err := r.Ledger.Entry(t.requestID)
	if err != nil {
		return err
	}
	if e.State != domain.EntryReceived {
		return nil
	}
	c := *e.Command
	if !t.gated {
		skip, yes, err := r.gates(ctx, c)
		switch {
		case err != nil:
			r.Logger.Warn("a gate can't be decided; trying again", "job", c.JobID, "exec", c.ExecID, "error", err)
			t.late = true
			r.later(ctx, t, askAgain)
			return nil
		case yes:
			return r.skip(ctx, e, skip)
		}
		t.gated = true
	}
	if c.Jitter > 0 && !t.jittered {
		t.jittered, t.late = true, true
		r.later(ctx, t, r.Jitter(c.Jitter))
		return nil
	}
	if c.Script.Object != "" {
		body, err := script.Fetch(ctx, r.Bus, c.Script.Object, c.Script.ObjectSHA256)
		switch {
		case errors.Is(err, script.ErrUnusable):
			return r.skip(ctx, e, domain.Skip{Reason: events.SkipReasonScriptObject, Detail: err.Error()})
		case err != nil:
			r.Logger.Warn("a script can't be fetched; trying again", "object", c.Script.Object, "error", err)
			t.gated, t.late = false, true
			r.later(ctx, t, askAgain)
			return nil
		}
		c.Script.Body = body
	}
	return r.run(ctx, t, e, c)
}

// run starts a command that has passed the gates, unless its exec has ended while it waited, and sees it to its end.
func (r *Runner) run(ctx context.Context, t task, e domain.Entry, c domain.Command) error {
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(domain.ErrStopped) })()
	defer r.hear(e, cancel)()
	if t.late || time.Since(t.heard) > moment {
		if skip, yes := r.calledOff(running, c); yes {
			return r.skip(ctx, e, skip)
		}
	}
	if skip, yes := c.Overdue(time.Now()); yes { // while it waited
		return r.skip(ctx, e, skip)
	}
	if errors.Is(context.Cause(running), domain.ErrKilled) {
		return r.skip(ctx, e, domain.Stopped(events.OutcomeKilled))
	}
	if ctx.Err() != nil {
		return nil // it stays received
	}
	at := r.stamp(ctx)
	e.State, e.StartedAt = domain.EntryStarted, at.Own.UTC()
	m, err := domain.Started(e, at)
	if err != nil {
		return err
	}
	err = r.persist(ctx, func() error { return r.Ledger.Start(t.requestID, e.StartedAt, m) })
	switch {
	case errors.Is(err, ledger.ErrState):
		return nil // called off in this moment
	case err != nil:
		return err
	}
	r.Metrics.Running.Inc()
	defer r.Metrics.Running.Dec()
	ending, out := r.attempts(running, cancel, e, c)
	return r.finish(ctx, e, ending, out)
}

// attempts runs the script, again if its retry says so and its exec was not killed meanwhile. A cancelled or halted exec
// lets go on what has begun, and the attempts of a run are one run: it has begun once, and has one end. No attempt begins
// after the deadline. Only the last one is reported.
func (r *Runner) attempts(
	ctx context.Context, cancel context.CancelCauseFunc, e domain.Entry, c domain.Command,
) (domain.Ending, outputs) {
	ran := false
	for attempt := 1; ; attempt++ {
		stdout, stderr := capture.New(r.spool(e, "stdout")), capture.New(r.spool(e, "stderr"))
		bounded, stop := context.WithTimeoutCause(ctx, c.Timeout, domain.ErrTimeout)
		exit, err := r.Executor.Run(bounded, e.Run.ResultID, c.Script, environment(e, attempt), stdout, stderr)
		ending := c.Judge(exit, err, context.Cause(bounded))
		stop()
		if ran = ran || !errors.Is(err, domain.ErrNotStarted); ran && ending.Reason == events.ReasonNotStarted {
			ending.Reason, ending.Detail = fmt.Sprintf("attempt %d: %s", attempt, ending.Detail), ""
		}
		if c.Again(attempt, ending) && pause(ctx, c.Backoff) {
			if word, ok := r.ask(ctx, c.ExecID); ok && word == events.OutcomeKilled {
				cancel(domain.ErrKilled)
			}
			if _, overdue := c.Overdue(time.Now()); overdue {
				return ending, r.collect(e, stdout, stderr)
			}
			if ctx.Err() == nil {
				stdout.Discard()
				stderr.Discard()
				continue
			}
		}
		if cause := context.Cause(ctx); cause != nil && c.Again(attempt, ending) {
			ending = c.Judge(domain.Exit{Signal: "kill"}, nil, cause) // killed while it waited for the next attempt
		}
		return ending, r.collect(e, stdout, stderr)
	}
}

func (r *Runner) collect(e domain.Entry, stdout, stderr *capture.Capture) (out outputs) {
	for _, s := range []struct {
		name string
		from *capture.Capture
		to   *events.Output
	}{{"stdout", stdout, &out.stdout}, {"stderr", stderr, &out.stderr}} {
		o, upload, err := s.from.Close(e.Run.ResultID + "/" + s.name)
		if err != nil {
			r.Logger.Error("an output can't be kept whole", "result_id", e.Run.ResultID, "stream", s.name, "error", err)
		}
		if *s.to = o; upload != nil {
			out.uploads = append(out.uploads, *upload)
		}
	}
	return out
}

func (r *Runner) spool(e domain.Entry, stream string) string {
	return filepath.Join(r.Spool, e.Run.ResultID+"."+stream)
}

// environment names the run to its script.
func environment(e domain.Entry, attempt int) []string {
	return []string{
		"KANADE_PC_ID=" + e.Run.PCID, "KANADE_JOB_ID=" + e.Run.JobID, "KANADE_JOB_VERSION=" + e.Run.Version,
		"KANADE_EXEC_ID=" + e.Run.ExecID, "KANADE_RESULT_ID=" + e.Run.ResultID, "KANADE_ATTEMPT=" + strconv.Itoa(attempt),
	}
}

func (r *Runner) finish(ctx context.Context, e domain.Entry, ending domain.Ending, out outputs) error {
	m, err := domain.Finished(e, ending, out.stdout, out.stderr, out.uploads, r.stamp(ctx))
	if err != nil {
		return err
	}
	err = r.persist(ctx, func() error { return r.Ledger.Finish(e.Run.RequestID, domain.EntryStarted, m) })
	if err == nil {
		r.Metrics.Runs.WithLabelValues(string(ending.State)).Inc()
		r.Logger.Info("run ended", "job", e.Run.JobID, "exec", e.Run.ExecID, "result_id", e.Run.ResultID,
			"state", string(ending.State), "reason", ending.Reason)
	}
	return err
}

// skip ends a command that has not begun. One that has, or that has been skipped, stays as it is.
func (r *Runner) skip(ctx context.Context, e domain.Entry, s domain.Skip) error {
	if ctx.Err() != nil {
		return nil
	}
	m, err := domain.Skipped(e, s, r.stamp(ctx))
	if err != nil {
		return err
	}
	err = r.persist(ctx, func() error { return r.Ledger.Finish(e.Run.RequestID, domain.EntryReceived, m) })
	if errors.Is(err, ledger.ErrState) {
		return nil
	}
	if err == nil {
		r.Metrics.Skips.WithLabelValues(s.Reason).Inc()
		r.Logger.Info("command skipped", "job", e.Run.JobID, "exec", e.Run.ExecID, "reason", s.Reason, "detail", s.Detail)
	}
	return err
}
