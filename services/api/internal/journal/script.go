package journal

import (
	"context"

	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// RevokeScript keeps the commands of a job from starting. The job need not exist.
func (j *Journal) RevokeScript(ctx context.Context, c Caller, jobID, reason string) (uint64, error) {
	return j.writeScript(ctx, c, jobID, factRevoked, func(_ context.Context, cur domain.Script) (events.Payload, error) {
		if revoked := domain.RevokeScript(cur, jobID, reason); revoked != nil {
			return *revoked, nil
		}
		return nil, nil
	})
}

// UnrevokeScript takes a revocation back.
func (j *Journal) UnrevokeScript(ctx context.Context, c Caller, jobID, reason string) (uint64, error) {
	return j.writeScript(ctx, c, jobID, factUnrevoked, func(_ context.Context, cur domain.Script) (events.Payload, error) {
		if unrevoked := domain.UnrevokeScript(cur, jobID, reason); unrevoked != nil {
			return *unrevoked, nil
		}
		return nil, nil
	})
}

func (j *Journal) writeScript(
	ctx context.Context, c Caller, jobID, fact string, decide func(context.Context, domain.Script) (events.Payload, error),
) (uint64, error) {
	return j.write(ctx, c, subject{aggregate: events.AggregateScript, id: jobID, fact: fact}, func(ctx context.Context) (decision, error) {
		cur, err := j.script(ctx, jobID)
		if err != nil {
			return decision{}, err
		}
		p, err := decide(ctx, cur)
		return decision{fact: p, sequence: cur.Seq, expected: cur.Seq}, err
	})
}

// Revoked tells whether endpoints would skip the commands of a job.
func (j *Journal) Revoked(ctx context.Context, jobID string) (bool, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return false, err
	}
	defer cancel()
	cur, err := j.script(ctx, jobID)
	return cur.Revoked, err
}

func (j *Journal) script(ctx context.Context, jobID string) (domain.Script, error) {
	last, _, err := j.bus.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateScript, jobID))
	return domain.Script{Revoked: last.Seq > 0 && last.Fact() == factRevoked, Seq: last.Seq}, err
}
