package journal

import (
	"context"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// ScheduleDocument reads a schedule as the log has it.
func (j *Journal) ScheduleDocument(ctx context.Context, id string) (*catalog.Schedule, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	cur, err := current[events.ScheduleSaved](ctx, j.bus, events.AggregateSchedule, id)
	if err != nil {
		return nil, err
	}
	if cur.Saved == nil {
		return nil, domain.Refuse(domain.NotFound, "schedule '%s' not found", id)
	}
	return catalog.ParseScheduleDocument(cur.Saved.Document)
}

// RunSchedule asks for the job of a schedule to be run with its plan, now and besides its ticks: what it does on endpoints
// is no part of what the schedule remembers. pcs narrow it; whether they are of its target is for admit to say.
func (j *Journal) RunSchedule(
	ctx context.Context, c Caller, id string, pcs []string, reason string, admit Admit,
) (events.ExecRequested, uint64, error) {
	r := domain.ExecRequest{ScheduleID: id, Reason: reason}
	return j.request(ctx, c, r, func(ctx context.Context, r domain.ExecRequest) (events.ExecRequested, error) {
		s, err := j.ScheduleDocument(ctx, id)
		if err != nil {
			return events.ExecRequested{}, err
		}
		r.JobID, r.Plan = s.JobID, domain.SchedulePlan(s, pcs)
		return j.draft(ctx, r)
	}, admit)
}

// BackfillTick asks for the exec of a nominal tick that nobody fired, under the id that it would have had: where it is there
// already, also by the scheduler, that one is returned.
func (j *Journal) BackfillTick(
	ctx context.Context, c Caller, s *catalog.Schedule, nominal time.Time, reason string, admit Admit,
) (events.ExecRequested, uint64, error) {
	c.Key, c.BodyHash = "", "" // it stands for all ticks of the request, none of which is made twice
	r := domain.ExecRequest{
		ExecID: events.FireID(s.ID, nominal), JobID: s.JobID, Plan: domain.SchedulePlan(s, nil), ScheduleID: s.ID, Nominal: &nominal, Reason: reason,
	}
	return j.request(ctx, c, r, j.draft, admit)
}
