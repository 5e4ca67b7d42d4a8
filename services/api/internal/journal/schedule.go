package journal

import (
	"context"
	"fmt"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// SaveSchedule stores a schedule whose job and calendars exist.
func (j *Journal) SaveSchedule(
	ctx context.Context, c Caller, s *catalog.Schedule, text string, t catalog.SourceType,
) (uint64, error) {
	return j.writeSchedule(ctx, c, s.ID, factSaved, func(ctx context.Context, cur domain.Schedule) (events.Payload, error) {
		job, err := j.job(ctx, s.JobID)
		if err != nil {
			return nil, err
		}
		saved, err := domain.SaveSchedule(cur, s, job, text, t, c.Match)
		if err == nil {
			err = j.checkCalendars(ctx, s)
		}
		if saved == nil || err != nil {
			return nil, err
		}
		return *saved, nil
	})
}

// DeleteSchedule deletes a schedule.
func (j *Journal) DeleteSchedule(ctx context.Context, c Caller, id string) (uint64, error) {
	return j.writeSchedule(ctx, c, id, factDeleted, func(_ context.Context, cur domain.Schedule) (events.Payload, error) {
		deleted, err := domain.DeleteSchedule(cur, id, c.Match)
		if deleted == nil {
			return nil, err
		}
		return *deleted, err
	})
}

// EnableSchedule switches a schedule on or off, and returns the job that it names as well.
func (j *Journal) EnableSchedule(ctx context.Context, c Caller, id string, enabled bool) (jobID string, seq uint64, err error) {
	name := func(cur domain.Schedule) {
		if cur.Saved != nil {
			jobID = cur.Saved.JobID
		}
	}
	seq, err = j.writeSchedule(ctx, c, id, factSaved, func(_ context.Context, cur domain.Schedule) (events.Payload, error) {
		name(cur)
		saved, err := domain.EnableSchedule(cur, id, enabled, c.Match)
		if saved == nil {
			return nil, err
		}
		return *saved, err
	})
	if err == nil && jobID == "" { // a repeated request, which was not decided again
		cur, err := current[events.ScheduleSaved](ctx, j.bus, events.AggregateSchedule, id)
		name(cur)
		return jobID, seq, err
	}
	return jobID, seq, err
}

func (j *Journal) writeSchedule(
	ctx context.Context, c Caller, id, fact string, decide func(context.Context, domain.Schedule) (events.Payload, error),
) (uint64, error) {
	return j.write(ctx, c, subject{aggregate: events.AggregateSchedule, id: id, fact: fact}, func(ctx context.Context) (decision, error) {
		cur, err := current[events.ScheduleSaved](ctx, j.bus, events.AggregateSchedule, id)
		if err != nil {
			return decision{}, err
		}
		p, err := decide(ctx, cur)
		return decision{fact: p, sequence: cur.Seq, expected: cur.Last}, err
	})
}

// Zone is what "local" means in this installation; false while the installation has none yet.
func (j *Journal) Zone(ctx context.Context) (*time.Location, bool, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer cancel()
	cur, err := current[events.InstallationSaved](ctx, j.bus, events.AggregateConfig, events.InstallationID)
	if err != nil || cur.Saved == nil {
		return time.UTC, false, err
	}
	zone, err := time.LoadLocation(cur.Saved.Zone)
	if err != nil {
		return nil, false, fmt.Errorf("read zone of the installation: %w", err)
	}
	return zone, true, nil
}

// Now is the broker's clock, bounded as writes are.
func (j *Journal) Now(ctx context.Context) (time.Time, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer cancel()
	return j.bus.Now(ctx)
}
