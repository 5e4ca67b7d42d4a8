package housekeeping

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
	"kanade/services/scheduler/internal/supervisor"
)

// recountTargets bounds how many endpoints one pass over the log counts: some 200 bytes of memory each.
const recountTargets = 500_000

// pending is an exec that is to be reduced.
type pending struct {
	id string
	domain.Reduction
}

// execs reduces what is older than the history, from the log's beginning on, and takes out of the log what was said of execs
// that were reduced before.
func (r *run) execs(ctx context.Context) error {
	var late []pending
	err := r.bus.Walk(ctx, events.FactFilter(events.AggregateExec, "requested"), 0, func(m bus.RawMsg) (bool, error) {
		if !m.Time.Before(r.due.History) {
			return false, nil
		}
		e, err := m.Event()
		if err != nil {
			return true, r.leave(m.Subject, err)
		}
		reduced, is, err := r.bus.LastRaw(ctx, events.StreamLog, events.FactSubject(events.AggregateExec, e.Subject, "reduced"))
		if err != nil {
			return false, err
		}
		if is {
			if reduced.Time.Before(r.due.Slack) {
				return true, r.deleteUntil(ctx, kindExecFact, events.AggregateFilter(events.AggregateExec, e.Subject), m.Seq, reduced.Seq, m.Seq)
			}
			return true, nil
		}
		x, err := r.load(ctx, e.Subject, m.Seq)
		if err != nil {
			return true, r.leave(m.Subject, err)
		}
		if _, noted := r.late[x.id]; noted {
			late = append(late, x)
			return true, nil
		}
		return true, r.reduce(ctx, x)
	})
	if err != nil {
		return err
	}
	for len(late) > 0 {
		n, targets := 0, 0
		for n < len(late) && (n == 0 || targets+late[n].Summary.TargetCount <= recountTargets) {
			targets += late[n].Summary.TargetCount
			n++
		}
		if err := r.recount(ctx, late[:n]); err != nil {
			return err
		}
		late = late[n:]
	}
	return nil
}

// leave passes over what can't be read; other errors end the run.
func (r *run) leave(subject string, err error) error {
	var undecodable *events.DecodeError
	if !errors.As(err, &undecodable) {
		return err
	}
	r.left++
	r.logger.Warn("a fact can't be read; what it belongs to stays in the log", "subject", subject, "error", err)
	return nil
}

// load reads an exec from its request on; the broker would look for the first fact from the log's beginning.
func (r *run) load(ctx context.Context, id string, requested uint64) (pending, error) {
	facts, err := r.bus.Load(ctx, events.AggregateExec, id, requested-1)
	if err != nil {
		return pending{}, err
	}
	x := pending{id: id}
	for i := range facts {
		p, err := facts[i].Payload()
		if err != nil {
			return pending{}, err
		}
		x.Apply(&facts[i].Event, p, facts[i].Seq, facts[i].StoredAt)
	}
	return x, nil
}

// reduce says in one fact what an exec was, if it is time. One that has changed meanwhile is for the next run.
func (r *run) reduce(ctx context.Context, x pending) error {
	p, ok := x.Reduce(x.id, r.due)
	if !ok {
		return nil
	}
	now, err := r.bus.Now(ctx)
	if err != nil {
		return err
	}
	e, err := events.New(p, events.Meta{
		ID: events.DeriveID(x.id, "reduced"), Source: supervisor.Source, Time: now, Actor: supervisor.Actor, CorrelationID: x.id,
	})
	if err != nil {
		return err
	}
	if _, err := r.bus.Append(ctx, e, x.LastSeq); err != nil {
		if errors.Is(err, bus.ErrConflict) {
			return nil
		}
		return fmt.Errorf("reduce exec %s: %w", x.id, err)
	}
	r.reduced++
	r.metrics.reduced.Inc()
	return nil
}

// recount counts the totals of execs anew, in one pass over the log from the earliest of their requests, and reduces them.
func (r *run) recount(ctx context.Context, execs []pending) error {
	last, _, err := r.bus.LastRaw(ctx, events.StreamLog, ">")
	if err != nil {
		return err
	}
	from := last.Seq
	counts := make(map[string]*domain.Recount, len(execs))
	for _, x := range execs {
		counts[x.id], from = &domain.Recount{}, min(from, x.Summary.Sequence)
	}
	err = r.pass(ctx, from, last.Seq, func(_ context.Context, batch []bus.RawMsg) (bool, error) {
		for _, m := range batch {
			count(counts, m)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, x := range execs {
		x.Totals = counts[x.id].Totals()
		r.recounted++
		if err := r.reduce(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// count takes in a message of the log, if it is of one of the execs. What can't be read says nothing, here as elsewhere.
func count(counts map[string]*domain.Recount, m bus.RawMsg) {
	e, err := m.Event()
	if err != nil {
		return
	}
	if f, ok, err := events.RunFactOf(e); ok || err != nil {
		if x := counts[f.ExecID]; x != nil && err == nil {
			x.Run(f, m.Seq, m.Time)
		}
		return
	}
	x := counts[e.Subject]
	if x == nil || e.Aggregate() != events.AggregateExec {
		return
	}
	if p, err := e.Payload(); err == nil {
		x.Apply(p, m.Seq, m.Time)
	}
}

// reducedLag is how long after it is due at the earliest an exec is reduced at the latest, in the ordinary course: a run a day.
const reducedLag = 48 * time.Hour

// reducedExecs takes execs out of the log that are older than the ledger. Where they end is judged by when they were reduced,
// a history after they were requested; one that was reduced late goes late.
func (r *run) reducedExecs(ctx context.Context) error {
	until := r.due.Ledger.Add(r.retain.History).Add(reducedLag)
	return r.bus.Walk(ctx, events.FactFilter(events.AggregateExec, "reduced"), 0, func(m bus.RawMsg) (bool, error) {
		if !m.Time.Before(until) || !m.Time.Before(r.due.Slack) {
			return false, nil
		}
		s, err := m.Stored()
		if err != nil {
			return true, r.leave(m.Subject, err)
		}
		p, err := s.Payload()
		if err != nil {
			return true, r.leave(m.Subject, err)
		}
		if x, ok := p.(events.ExecReduced); ok && x.InitiatedAt.Before(r.due.Ledger) {
			return true, r.deleteAll(ctx, kindExec, events.AggregateFilter(events.AggregateExec, s.Subject), m.Seq, m.Seq, r.due.Slack)
		}
		return true, nil
	})
}
