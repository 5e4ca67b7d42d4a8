package journal

import (
	"context"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// SaveJob stores a manifest.
func (j *Journal) SaveJob(ctx context.Context, c Caller, m *catalog.Manifest, text string, t catalog.SourceType) (uint64, error) {
	return j.write(ctx, c, subject{aggregate: events.AggregateJob, id: m.ID, fact: factSaved}, func(ctx context.Context) (decision, error) {
		cur, err := j.job(ctx, m.ID)
		if err != nil {
			return decision{}, err
		}
		saved, err := domain.SaveJob(cur, m, text, t, c.Match)
		if err != nil || saved == nil {
			return decision{sequence: cur.Seq}, err
		}
		return decision{fact: *saved, expected: cur.Last}, nil
	})
}

// DeleteJob deletes a job unless a schedule names it, and revokes it. namedBy lists those that do, as of at least a
// sequence of the log that it is given; a schedule that is saved afterwards finds its job gone at its next tick and says
// so. The revocation is a second fact; whoever repeats a request that broke off between the two makes up for it.
func (j *Journal) DeleteJob(
	ctx context.Context, c Caller, id string, namedBy func(ctx context.Context, sequence uint64) ([]string, error),
) (uint64, error) {
	deleted, err := j.write(ctx, c, subject{aggregate: events.AggregateJob, id: id, fact: factDeleted}, func(ctx context.Context) (decision, error) {
		cur, err := j.job(ctx, id)
		if err != nil {
			return decision{}, err
		}
		last, err := j.bus.LastSeq(ctx, events.StreamLog)
		if err != nil {
			return decision{}, err
		}
		names, err := namedBy(ctx, last)
		if err != nil {
			return decision{}, err
		}
		deleted, err := domain.DeleteJob(cur, id, names, c.Match)
		if err != nil || deleted == nil {
			return decision{sequence: cur.Seq}, err
		}
		return decision{fact: *deleted, expected: cur.Last}, nil
	})
	if err != nil {
		return 0, err
	}
	revoked, err := j.writeScript(ctx, c, id, factRevoked, func(ctx context.Context, cur domain.Script) (events.Payload, error) {
		job, err := j.job(ctx, id)
		if err != nil {
			return nil, err
		}
		if revoked := domain.RevokeDeleted(job, cur, id); revoked != nil {
			return *revoked, nil
		}
		return nil, nil
	})
	return max(deleted, revoked), err
}

func (j *Journal) job(ctx context.Context, id string) (domain.Job, error) {
	return current[events.JobSaved](ctx, j.bus, events.AggregateJob, id)
}
