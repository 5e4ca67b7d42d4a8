package systemtest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// history is a fold of the log of its own, for checks.
type history struct {
	ticks map[string][]tickFact // by schedule, in log order
	execs map[string]*execFact
}

type tickFact struct {
	events.ScheduleTicked
	at time.Time
}

// execFact is one exec; runs are by endpoint.
type execFact struct {
	requested events.ExecRequested
	planned   events.ExecPlanned
	outcome   events.Outcome
	expired   time.Time
	runs      map[string]*runFact
}

// runFact is when the log has heard of a run; the fact that ended it first counts.
type runFact struct {
	received, ended time.Time
	state           events.TargetState
	ends            int
}

// fold reads the whole log.
func (d *day) fold() history {
	d.t.Helper()
	b := bustest.Dial(d.t, d.broker)
	last, err := b.LastSeq(d.t.Context(), events.StreamLog)
	require.NoError(d.t, err)
	h := history{ticks: map[string][]tickFact{}, execs: map[string]*execFact{}}
	ctx, done := context.WithCancel(d.t.Context())
	defer done()
	require.NoError(d.t, b.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog}, func(_ context.Context, batch []bus.RawMsg) error {
		for _, m := range batch {
			e, err := m.Event()
			if err != nil {
				return err
			}
			if err := h.apply(e, m.Time); err != nil {
				return err
			}
			if m.Seq >= last {
				done()
			}
		}
		return nil
	}))
	return h
}

func (h *history) apply(e events.Event, at time.Time) error {
	if f, ok, err := events.RunFactOf(e); err != nil || ok {
		if ok {
			h.run(f, at)
		}
		return err
	}
	p, err := e.Payload()
	if err != nil {
		return err
	}
	switch p := p.(type) {
	case events.ScheduleTicked:
		h.ticks[p.ID] = append(h.ticks[p.ID], tickFact{p, at})
	case events.ExecRequested:
		x := h.exec(p.ExecID)
		x.requested = p
	case events.ExecPlanned:
		h.exec(p.ExecID).planned = p
	case events.ExecClosed:
		h.exec(p.ExecID).outcome = p.Outcome
	case events.ExecExpired:
		x := h.exec(p.ExecID)
		x.outcome, x.expired = p.Outcome, at
	}
	return nil
}

func (h *history) exec(id string) *execFact {
	x := h.execs[id]
	if x == nil {
		x = &execFact{runs: map[string]*runFact{}}
		h.execs[id] = x
	}
	return x
}

func (h *history) run(f events.RunFact, at time.Time) {
	x := h.exec(f.ExecID)
	r := x.runs[f.PCID]
	if r == nil {
		r = &runFact{received: at}
		x.runs[f.PCID] = r
	}
	if state := f.TargetState(); state.Final() {
		if r.ends++; r.ended.IsZero() {
			r.ended, r.state = at, state
		}
	}
}

// end is when the exec was settled on an endpoint: by its answer, or by the exec's end.
func (x *execFact) end(pc string) (time.Time, events.TargetState) {
	if r := x.runs[pc]; r != nil && !r.ended.IsZero() && (x.expired.IsZero() || r.ended.Before(x.expired)) {
		return r.ended, r.state
	}
	return x.expired, events.StateExpired
}

// busy tells whether a script of the schedule runs at a moment, as far as the log knows.
func (h *history) busy(schedule string, at time.Time) bool {
	for _, x := range h.execs {
		if x.requested.ScheduleID != schedule || !x.expired.IsZero() && !x.expired.After(at) {
			continue
		}
		for _, r := range x.runs {
			if r.received.Before(at) && (r.ended.IsZero() || r.ended.After(at)) {
				return true
			}
		}
	}
	return false
}
