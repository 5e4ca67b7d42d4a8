package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// RequestExec asks for a job to be run and returns the fact as the log holds it. With a key the exec id is derived from
// caller, route and key, so that a repeated request meets its own fact; a request without one makes an exec each time.
func (j *Journal) RequestExec(
	ctx context.Context, c Caller, jobID string, plan *catalog.Plan,
) (events.ExecRequested, uint64, error) {
	r := domain.ExecRequest{
		ExecID: uuid.NewString(), JobID: jobID, Plan: plan, Origin: c.Origin, Key: c.Key, BodyHash: c.BodyHash,
	}
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return events.ExecRequested{}, 0, err
	}
	defer cancel()
	if c.Key != "" {
		r.ExecID = c.request()
		if e, seq, ok, err := j.metExec(ctx, r); ok || err != nil {
			return e, seq, err
		}
	}
	e, seq, err := j.requestExec(ctx, c, r)
	if errors.Is(err, bus.ErrConflict) { // the same key, a moment earlier
		if e, seq, ok, err := j.metExec(ctx, r); ok || err != nil {
			return e, seq, err
		}
	}
	return e, seq, err
}

func (j *Journal) requestExec(ctx context.Context, c Caller, r domain.ExecRequest) (events.ExecRequested, uint64, error) {
	job, err := j.job(ctx, r.JobID)
	if err != nil {
		return events.ExecRequested{}, 0, err
	}
	if r.At, err = j.bus.Now(ctx); err != nil {
		return events.ExecRequested{}, 0, err
	}
	e, err := domain.RequestExec(job, r)
	if err != nil {
		return events.ExecRequested{}, 0, err
	}
	// The id is not derived from the key: of two requests at once, the one that comes second must learn what the first
	// one stored, not be told that it was its own.
	seq, err := j.append(ctx, e, events.Meta{
		ID: uuid.NewString(), Source: source, Time: r.At, Actor: c.Actor, CorrelationID: e.ExecID,
	}, 0)
	return e, seq, err
}

// metExec reads the fact that an earlier request with the same key left.
func (j *Journal) metExec(ctx context.Context, r domain.ExecRequest) (events.ExecRequested, uint64, bool, error) {
	none := events.ExecRequested{}
	s, ok, err := j.bus.Last(ctx, events.StreamLog, events.FactSubject(events.AggregateExec, r.ExecID, factRequested))
	if err != nil || !ok {
		return none, 0, false, err
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
