package journal

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/synadia-io/orbit.go/jetstreamext"

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
	s := subject{aggregate: events.AggregateExec, id: id, fact: fact, unchecked: fact == factKilled}
	var waves *waveFacts
	if fact == factAdvanced {
		waves = &waveFacts{id: id, next: map[string]uint64{}}
	}
	return j.write(ctx, c, s, func(ctx context.Context) (decision, error) {
		x, err := j.exec(ctx, id, waves)
		if err != nil {
			return decision{}, err
		}
		i, err := decide(x)
		return decision{fact: i.Fact, sequence: i.Sequence, expected: x.Last}, err
	})
}

// exec folds an exec strongly, from the newest fact of each kind: one that goes out in parts may have a fact for each of
// its endpoints. Of one that was reduced that fact alone may be left. Its waves are read only where waves is not nil.
func (j *Journal) exec(ctx context.Context, id string, waves *waveFacts) (domain.Exec, error) {
	var x domain.Exec
	fail := func(err error) (domain.Exec, error) { return x, fmt.Errorf("read exec %s: %w", id, err) }
	// The first facts never change; they may be large, and time passes.
	first, err := j.lastFacts(ctx, id, factRequested, factReduced)
	if err != nil || len(first) == 0 {
		return x, err
	}
	last, _, err := j.bus.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateExec, id))
	if err != nil {
		return fail(err)
	}
	facts, err := j.lastFacts(ctx, id, factKilled, factCancelled, factHalted, factClosed, factExpired, factPaused, factResumed)
	if err != nil {
		return fail(err)
	}
	facts = append(first, facts...)
	if waves != nil {
		if err := waves.read(ctx, j.bus); err != nil {
			return fail(err)
		}
		facts = append(facts, waves.facts...)
	}
	slices.SortFunc(facts, func(a, b bus.Stored) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, f := range facts {
		p, err := f.Payload()
		if err != nil {
			return fail(err)
		}
		x.Apply(p, f.Seq)
	}
	x.Last = last.Seq
	return x, nil
}

// lastFacts reads the newest fact of each kind that there is one of.
func (j *Journal) lastFacts(ctx context.Context, id string, kinds ...string) ([]bus.Stored, error) {
	var facts []bus.Stored
	for _, kind := range kinds {
		s, ok, err := j.bus.Last(ctx, events.StreamLog, events.FactSubject(events.AggregateExec, id, kind))
		if err != nil {
			return nil, err
		}
		if ok {
			facts = append(facts, s)
		}
	}
	return facts, nil
}

// waveFacts are the plan of an exec and everything that lets a wave of it go out, as far as it has been read.
type waveFacts struct {
	id    string
	facts []bus.Stored
	next  map[string]uint64
}

// read goes on to the end, in pages.
func (w *waveFacts) read(ctx context.Context, b *bus.Bus) error {
	const page = 1000
	for _, kind := range []string{factPlanned, factReleased, factAdvanced} {
		filter := jetstreamext.GetBatchSubject(events.FactSubject(events.AggregateExec, w.id, kind))
		for got := page; got == page; { // less than a page is all there was: others may write faster than this reads
			got = 0
			for m, err := range b.Batch(ctx, events.StreamLog, page, filter, jetstreamext.GetBatchSeq(w.next[kind]+1)) {
				if err != nil {
					return err
				}
				s, err := bus.RawMsg{Subject: m.Subject, Seq: m.Sequence, Time: m.Time.UTC(), Header: m.Header, Data: m.Data}.Stored()
				if err != nil {
					return err
				}
				w.next[kind], w.facts = m.Sequence, append(w.facts, s)
				got++
			}
		}
	}
	return nil
}
