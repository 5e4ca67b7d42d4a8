package domain

import (
	"time"

	"kanade/libs/events"
)

// Reduction is the fold of an exec's own facts from which it is reduced.
type Reduction struct {
	Summary events.ExecSummary
	// Totals are those that the last fact with totals says.
	Totals events.Totals
	// RequestedAt is when the broker stored the request.
	RequestedAt time.Time
	// LastSeq is the last sequence of the aggregate: what an append expects.
	LastSeq uint64
	// Reduced: it has been.
	Reduced bool
}

// Apply takes in the next fact of the exec, which the broker stored at an instant.
func (r *Reduction) Apply(e *events.Event, p events.Payload, seq uint64, at time.Time) {
	r.Summary.Apply(p, e, seq)
	r.LastSeq = seq
	switch p.(type) {
	case events.ExecRequested:
		if r.RequestedAt.IsZero() {
			r.RequestedAt = at
		}
	case events.ExecReduced:
		r.Reduced = true
	}
	if said, ok := events.TotalsOf(p); ok {
		r.Totals = said
	}
}

// Reduce decides whether the exec is reduced: it is older than the history, and it has expired. Before that somebody may
// still wait for its endpoints.
func (r *Reduction) Reduce(id string, due Due) (events.ExecReduced, bool) {
	if r.Reduced || r.RequestedAt.IsZero() || !r.RequestedAt.Before(due.History) || r.Summary.ExpiredAt.IsZero() {
		return events.ExecReduced{}, false
	}
	return events.ExecReduced{ExecID: id, ExecSummary: r.Summary, Totals: r.Totals.Clone()}, true
}

// Recount counts the totals of an exec anew, from its own facts and all that endpoints have said of it, in the order of the
// log. It forgets nobody, and what comes after the expiry counts: so it counts as the read model does. The zero value is an
// exec of which nothing is known.
type Recount struct {
	totals  events.Totals
	targets map[string]events.Target
	plan    *events.ExecPlanned
}

// Totals are those of the facts so far.
func (r *Recount) Totals() events.Totals { return r.totals.Clone() }

// Run takes in what an endpoint says.
func (r *Recount) Run(f events.RunFact, seq uint64, at time.Time) {
	if next, changed := r.targets[f.PCID].Apply(f, seq, at); changed {
		r.set(f.PCID, next)
	}
}

// Apply takes in a fact of the exec's own.
func (r *Recount) Apply(p events.Payload, seq uint64, at time.Time) {
	stop := func(reason string) {
		r.each(func(t events.Target) (events.Target, bool) { return t.Stop(reason, seq, at) })
	}
	switch p := p.(type) {
	case events.ExecPlanned:
		r.planned(p, seq, at)
	case events.WaveDispatched:
		r.dispatched(p, seq, at)
	case events.ExecHalted:
		stop(events.SkipReasonHalted)
	case events.ExecCancelled:
		stop(events.SkipReasonCancelled)
	case events.ExecKilled:
		stop(events.SkipReasonKilled)
	case events.ExecExpired:
		r.each(func(t events.Target) (events.Target, bool) { return t.Expire(seq, at) })
	}
}

// planned makes targets of the plan's endpoints.
func (r *Recount) planned(p events.ExecPlanned, seq uint64, at time.Time) {
	if r.plan != nil {
		return
	}
	r.plan = &p
	for pc, as := range p.Targets() {
		if next, changed := r.targets[pc].Plan(as, seq, at); changed {
			r.set(pc, next)
		}
	}
}

// dispatched marks whom Exec.dispatched marks.
func (r *Recount) dispatched(p events.WaveDispatched, seq uint64, at time.Time) {
	if r.plan == nil || p.Wave < 0 || p.Wave >= len(r.plan.Waves) {
		return
	}
	w := r.plan.Waves[p.Wave]
	if (p.From != 0 || p.To != 0) && r.plan.MaxParallel == nil {
		return
	}
	first, end := events.Part(w.Size(), p.From, p.To)
	for place := first; place < end; place++ {
		pc := w.At(place)
		if next, changed := r.targets[pc].Send(seq, at); changed {
			r.set(pc, next)
		}
	}
}

func (r *Recount) each(change func(events.Target) (events.Target, bool)) {
	for pc, t := range r.targets {
		if next, changed := change(t); changed {
			r.set(pc, next)
		}
	}
}

func (r *Recount) set(pc string, t events.Target) {
	if r.targets == nil {
		r.targets = map[string]events.Target{}
	}
	if old, known := r.targets[pc]; known {
		r.totals.Remove(old)
	}
	r.targets[pc] = t
	r.totals.Add(t)
}
