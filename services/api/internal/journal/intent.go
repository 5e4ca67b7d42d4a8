package journal

import (
	"context"
	"fmt"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// KillExec stops an exec and what runs of it, and returns the sequence of the fact that says so, as do the others here.
func (j *Journal) KillExec(ctx context.Context, c Caller, id, reason string) (uint64, error) {
	return j.intent(ctx, c, id, factKilled, func(x domain.Exec) (domain.Intent, error) { return domain.KillExec(x, id, reason) })
}

// CancelExec stops an exec and lets go on what runs of it.
func (j *Journal) CancelExec(ctx context.Context, c Caller, id, reason string) (uint64, error) {
	return j.intent(ctx, c, id, factCancelled, func(x domain.Exec) (domain.Intent, error) { return domain.CancelExec(x, id, reason) })
}

// PauseExec holds back every wave that has not gone out.
func (j *Journal) PauseExec(ctx context.Context, c Caller, id, reason string) (uint64, error) {
	return j.intent(ctx, c, id, factPaused, func(x domain.Exec) (domain.Intent, error) { return domain.PauseExec(x, id, reason) })
}

// ResumeExec ends a pause.
func (j *Journal) ResumeExec(ctx context.Context, c Caller, id, reason string) (uint64, error) {
	return j.intent(ctx, c, id, factResumed, func(x domain.Exec) (domain.Intent, error) { return domain.ResumeExec(x, id, reason) })
}

// AdvanceExec lets a wave go out now, the named one or with nil the next, and returns which one that was as well.
func (j *Journal) AdvanceExec(ctx context.Context, c Caller, id string, wave *int, reason string) (uint64, int, error) {
	seq, err := j.intent(ctx, c, id, factAdvanced, func(x domain.Exec) (domain.Intent, error) {
		return domain.AdvanceExec(x, id, wave, reason)
	})
	if err != nil {
		return 0, 0, err
	}
	out, err := j.waveOf(ctx, id, seq)
	return seq, out, err
}

// waveOf is the wave that the fact of a sequence lets go out.
func (j *Journal) waveOf(ctx context.Context, id string, seq uint64) (int, error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("read wave of exec %s at %d: %w", id, seq, err) }
	m, ok, err := j.bus.Get(ctx, events.StreamLog, seq)
	if err != nil || !ok {
		return fail(err)
	}
	s, err := m.Stored()
	if err != nil {
		return fail(err)
	}
	p, err := s.Payload()
	switch p := p.(type) {
	case events.WaveAdvanced:
		return p.Wave, nil
	case events.WaveReleased:
		return p.Wave, nil
	}
	return fail(err)
}

func (j *Journal) intent(
	ctx context.Context, c Caller, id, fact string, decide func(domain.Exec) (domain.Intent, error),
) (uint64, error) {
	return j.write(ctx, c, subject{events.AggregateExec, id, fact}, func(ctx context.Context) (decision, error) {
		x, err := j.exec(ctx, id)
		if err != nil {
			return decision{}, err
		}
		i, err := decide(x)
		return decision{fact: i.Fact, sequence: i.Sequence, expected: x.Last}, err
	})
}

// laggingFor is the pause before a follower that lags is asked again.
const laggingFor = 20 * time.Millisecond

// exec folds an exec strongly. The leader says how far its facts go; whoever gives them must have come as far, because a
// refusal is no append that would be checked.
func (j *Journal) exec(ctx context.Context, id string) (domain.Exec, error) {
	var x domain.Exec
	last, ok, err := j.bus.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateExec, id))
	if err != nil || !ok {
		return x, err
	}
	for {
		facts, err := j.bus.Load(ctx, events.AggregateExec, id, x.Last)
		if err != nil {
			return x, err
		}
		for _, f := range facts {
			p, err := f.Payload()
			if err != nil {
				return x, fmt.Errorf("read exec %s at %d: %w", id, f.Seq, err)
			}
			x.Apply(p, f.Seq)
		}
		if x.Last >= last.Seq {
			return x, nil
		}
		select {
		case <-ctx.Done():
			return x, fmt.Errorf("read exec %s: %w: %w", id, bus.ErrUnavailable, ctx.Err())
		case <-time.After(laggingFor):
		}
	}
}
