package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/api/internal/domain"
)

// Admit is asked before a request of an exec is stored, and may refuse it; else it says how many endpoints the request is
// for (ExecRequested.TargetCount). Nil admits all. A request that meets its own fact was admitted when that was stored. It
// bounds its own time: it may have to wait for the read model, which Timeout is not meant for.
type Admit func(ctx context.Context, e events.ExecRequested, at time.Time) (*int, error)

// RequestExec asks for a job to be run and returns the fact as the log holds it. With a key the exec id is derived from
// caller, route and key, so that a repeated request meets its own fact; a request without one makes an exec each time.
func (j *Journal) RequestExec(
	ctx context.Context, c Caller, jobID string, plan *catalog.Plan, admit Admit,
) (events.ExecRequested, uint64, error) {
	r := domain.ExecRequest{JobID: jobID, Plan: plan}
	return j.request(ctx, c, r, j.draft, admit)
}

// DraftExec is the fact that RequestExec would append at this moment of the broker's clock; nothing is written.
func (j *Journal) DraftExec(ctx context.Context, c Caller, jobID string, plan *catalog.Plan) (events.ExecRequested, time.Time, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return events.ExecRequested{}, time.Time{}, err
	}
	defer cancel()
	r := domain.ExecRequest{ExecID: drawn(), JobID: jobID, Plan: plan, Origin: c.Origin}
	if r.At, err = j.bus.Now(ctx); err != nil {
		return events.ExecRequested{}, time.Time{}, err
	}
	e, err := j.draft(ctx, r)
	return e, r.At, err
}

// RequestRun asks for a script to be run on one endpoint. execID is the id that the client wants the exec to have; empty:
// none.
func (j *Journal) RequestRun(ctx context.Context, c Caller, execID string, run domain.Run) (events.ExecRequested, uint64, error) {
	r := domain.ExecRequest{ExecID: execID, JobID: wire.AdHocJobID}
	return j.request(ctx, c, r, func(_ context.Context, r domain.ExecRequest) (events.ExecRequested, error) {
		return run.Request(r)
	}, nil)
}

// RetryExec asks for endpoints of an exec to be tried again, as an exec of its own. choose gives them, as of at least a
// sequence of the log; it is not asked when the request meets its own fact.
func (j *Journal) RetryExec(
	ctx context.Context, c Caller, execID string, retry domain.Retry, choose func(ctx context.Context, sequence uint64) ([]string, error),
) (events.ExecRequested, uint64, error) {
	met, err := j.requested(ctx, execID)
	if err != nil {
		return events.ExecRequested{}, 0, err
	}
	r := domain.ExecRequest{JobID: met.JobID, RetryOf: execID, Reason: retry.Reason}
	return j.request(ctx, c, r, func(ctx context.Context, r domain.ExecRequest) (events.ExecRequested, error) {
		last, err := j.bus.LastSeq(ctx, events.StreamLog)
		if err != nil {
			return events.ExecRequested{}, err
		}
		pcs, err := choose(ctx, last)
		if err != nil {
			return events.ExecRequested{}, err
		}
		if r.Plan, err = retry.Plan(met, pcs); err != nil {
			return events.ExecRequested{}, err
		}
		job, err := j.job(ctx, r.JobID)
		if err != nil {
			return events.ExecRequested{}, err
		}
		if !retry.Original(met, job) {
			return j.draftOf(ctx, job, r)
		}
		e, err := domain.RetryOriginal(met, r)
		if err == nil {
			err = j.pinned(ctx, e.Script)
		}
		return e, err
	}, nil)
}

// requested reads what an exec was asked to be.
func (j *Journal) requested(ctx context.Context, execID string) (events.ExecRequested, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return events.ExecRequested{}, err
	}
	defer cancel()
	x, err := j.exec(ctx, execID, nil)
	if err == nil {
		err = x.Known(execID)
	}
	if err != nil {
		return events.ExecRequested{}, err
	}
	return *x.Requested, nil
}

// drawn is an exec's id that is made of nothing: a UUID of version 7. Agents of kanade 0.43 draw those of version 4 for runs
// of their own, and whoever reads what they report can tell the two apart.
func drawn() string { return uuid.Must(uuid.NewV7()).String() }

// request appends the first fact of an exec, which draft decides at the broker's time, unless it is there.
func (j *Journal) request(
	ctx context.Context, c Caller, r domain.ExecRequest, draft func(context.Context, domain.ExecRequest) (events.ExecRequested, error), admit Admit,
) (events.ExecRequested, uint64, error) {
	r.Origin, r.Key, r.BodyHash = c.Origin, c.Key, c.BodyHash
	switch {
	case r.ExecID == "" && r.Key != "":
		r.ExecID = c.request()
	case r.ExecID == "":
		r.ExecID = drawn()
	}
	e, seq, err := j.drafted(ctx, &r, draft)
	if err != nil || seq > 0 {
		return e, seq, err
	}
	if admit != nil {
		if e.TargetCount, err = admit(ctx, e, r.At); err != nil {
			return events.ExecRequested{}, 0, err
		}
	}
	// The id is not derived from the key: of two requests at once, the one that comes second must learn what the first
	// one stored, not be told that it was its own.
	fact, err := events.New(e, events.Meta{
		ID: uuid.NewString(), Source: source, Time: r.At, Actor: c.Actor, Origin: c.Origin, CorrelationID: e.ExecID,
	})
	if err == nil {
		fact, err = fact.Compressed() // before the time that the broker has begins
	}
	if err != nil {
		return events.ExecRequested{}, 0, err
	}
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return events.ExecRequested{}, 0, err
	}
	defer cancel()
	seq, err = j.append(ctx, fact, 0)
	if errors.Is(err, bus.ErrConflict) { // the same key, a moment earlier, or an id that somebody else took
		if e, seq, ok, err := j.metExec(ctx, r); ok || err != nil {
			return e, seq, err
		}
	}
	return e, seq, err
}

// drafted is the fact that a request is to append, at the broker's time, which it notes; or with a sequence the fact that
// an earlier one with its key left.
func (j *Journal) drafted(
	ctx context.Context, r *domain.ExecRequest, draft func(context.Context, domain.ExecRequest) (events.ExecRequested, error),
) (events.ExecRequested, uint64, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return events.ExecRequested{}, 0, err
	}
	defer cancel()
	if r.Key != "" {
		if e, seq, ok, err := j.metExec(ctx, *r); ok || err != nil {
			return e, seq, err
		}
	}
	if r.At, err = j.bus.Now(ctx); err != nil {
		return events.ExecRequested{}, 0, err
	}
	e, err := draft(ctx, *r)
	return e, 0, err
}

// draft decides an exec of a job as it is stored, with its script object pinned.
func (j *Journal) draft(ctx context.Context, r domain.ExecRequest) (events.ExecRequested, error) {
	job, err := j.job(ctx, r.JobID)
	if err != nil {
		return events.ExecRequested{}, err
	}
	return j.draftOf(ctx, job, r)
}

func (j *Journal) draftOf(ctx context.Context, job domain.Job, r domain.ExecRequest) (events.ExecRequested, error) {
	e, err := domain.RequestExec(job, r)
	if err == nil {
		err = j.pin(ctx, &e.Script)
	}
	return e, err
}

// metExec reads the fact that an earlier request with the same key left.
func (j *Journal) metExec(ctx context.Context, r domain.ExecRequest) (events.ExecRequested, uint64, bool, error) {
	none := events.ExecRequested{}
	// An exec that was reduced is met as well: within a week its request is still there, and its key goes on to mean it.
	var s bus.Stored
	for _, fact := range []string{factRequested, factReduced} {
		found, ok, err := j.bus.Last(ctx, events.StreamLog, events.FactSubject(events.AggregateExec, r.ExecID, fact))
		if err != nil {
			return none, 0, false, err
		}
		if ok {
			s = found
			break
		}
	}
	switch {
	case s.Seq == 0:
		return none, 0, false, nil
	case s.Fact() == factReduced:
		return none, 0, false, domain.RepeatForgotten(r)
	}
	p, err := s.Payload()
	if err != nil {
		return none, 0, false, fmt.Errorf("read exec %s: %w", r.ExecID, err)
	}
	e, ok := p.(events.ExecRequested)
	if !ok {
		return none, 0, false, fmt.Errorf("read exec %s: sequence %d holds %s", r.ExecID, s.Seq, s.Type)
	}
	return e, s.Seq, true, domain.RepeatExec(e, r)
}

// ScriptObject is the script object that the request at a sequence has pinned; empty where its script is inline, or the
// log does not hold it any more.
func (j *Journal) ScriptObject(ctx context.Context, sequence uint64) (string, error) {
	m, ok, err := j.bus.Get(ctx, events.StreamLog, sequence)
	if err != nil || !ok {
		return "", err
	}
	s, err := m.Stored()
	if err != nil {
		return "", err
	}
	p, err := s.Payload()
	if err != nil {
		return "", err
	}
	e, _ := p.(events.ExecRequested)
	return e.Script.Object, nil
}
