// Package housekeeping keeps the log as small as what the installation remembers: once a day it reduces execs that are older
// than the history to one fact, and takes out of the log what has had its time. What that is decides domain.
//
// Contract. The timer of a day first lets the clock tick, so that the log's time goes on while nothing else happens; then
// everything is decided by the time of the log, its last message's, and by no clock. The work is done in steps of a page,
// each of which leaves the log in order: whoever is interrupted is followed by the next one, who does the rest, and several at
// once do nothing twice that shows. A fact is deleted only where another one that stays, or its age, makes it superfluous:
// ExecReduced is stored before what it sums up goes, and that by a week.
//
// What is deleted is named by its sequence: nothing that is appended meanwhile is touched. It is counted by
// kind, and a line of the process's log tells each run.
package housekeeping

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
	"kanade/services/scheduler/internal/supervisor"
)

// Keeper keeps house. Make it with New, Close it in the end. Its methods are safe for concurrent use.
type Keeper struct {
	bus     *bus.Bus
	fold    *supervisor.Supervisor
	retain  events.Retain
	logger  *slog.Logger
	metrics *metrics
}

// New makes a keeper on a fold; reg may be nil.
func New(b *bus.Bus, fold *supervisor.Supervisor, retain events.Retain, logger *slog.Logger, reg prometheus.Registerer) (*Keeper, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("make housekeeping: %w", err)
	}
	return &Keeper{bus: b, fold: fold, retain: retain, logger: logger, metrics: m}, nil
}

// Close takes the metrics out of their registry.
func (k *Keeper) Close() { k.metrics.close() }

// Due handles the timer of a day. A log that is full takes no tick and is cleaned all the same; the next sweep of the
// supervisor sets the day's timer again.
func (k *Keeper) Due(ctx context.Context, t bus.Timer) error {
	err := k.tick(ctx, t)
	full := errors.Is(err, bus.ErrLogFull)
	if err != nil && !full {
		return err
	}
	if full {
		k.logger.Warn("the log is full: the clock can't tick and no exec is reduced; cleaning what can be", "error", err)
	}
	if err := k.keep(ctx); err != nil && !errors.Is(err, bus.ErrLogFull) {
		return fmt.Errorf("keep house: %w", err)
	}
	return nil
}

// nearlyFull is the share of the log's bytes from which on Relieve does something.
const nearlyFull = 0.9

// Relieve keeps house at once where the log is nearly full: whoever has shortened the history for that need not wait for
// midnight.
func (k *Keeper) Relieve(ctx context.Context) error {
	share, err := k.bus.Share(ctx, events.StreamLog)
	if err != nil || share < nearlyFull {
		return err
	}
	k.logger.Warn("the log is nearly full: cleaning what can be", "share", share)
	if err := k.keep(ctx); err != nil && !errors.Is(err, bus.ErrLogFull) {
		return fmt.Errorf("keep house: %w", err)
	}
	return nil
}

// tick lets the clock tick, once a day, whoever does it.
func (k *Keeper) tick(ctx context.Context, t bus.Timer) error {
	fail := func(err error) error { return fmt.Errorf("tick the clock: %w", err) }
	now, err := k.bus.Now(ctx)
	if err != nil {
		return fail(err)
	}
	if now.Before(t.At) {
		now = t.At // the clock is behind by the way of an answer, and the timer is not early
	}
	day := domain.DayOf(now)
	for {
		last, _, err := k.bus.LastRaw(ctx, events.StreamLog, events.AggregateFilter(events.AggregateClock, events.ClockID))
		if err != nil {
			return fail(err)
		}
		if newest, err := dayOf(last); err != nil || newest >= day {
			return err
		}
		e, err := events.New(events.ClockTicked{ID: events.ClockID, Day: day}, events.Meta{
			ID: events.DeriveID(events.ClockID, "ticked", day), Source: supervisor.Source, Time: now, Actor: supervisor.Actor, CorrelationID: events.ClockID,
		})
		if err != nil {
			return fail(err)
		}
		if _, err = k.bus.Append(ctx, e, last.Seq); !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}

// dayOf is the day that a message of the clock tells; empty where there is none, or it can't be read.
func dayOf(m bus.RawMsg) (string, error) {
	if m.Seq == 0 {
		return "", nil
	}
	s, err := m.Stored()
	if err != nil {
		return "", err
	}
	p, err := s.Payload()
	if err != nil {
		return "", err
	}
	t, _ := p.(events.ClockTicked)
	return t.Day, nil
}

// Kinds of what is deleted, as the metric names them.
const (
	kindExecFact = "exec_fact"
	kindExec     = "exec"
	kindTick     = "tick"
	kindDocument = "document"
	kindRecord   = "record"
	kindProgress = "progress"
	kindAged     = "aged"
)

// run is one run of housekeeping.
type run struct {
	*Keeper
	due domain.Due
	// late are the execs whose totals have to be counted anew.
	late    map[string]time.Time
	deleted map[string]int
	// reduced counts execs, recounted those of them whose totals were counted anew, left those that could not be read.
	reduced, recounted, left int
}

// keep does all the work of a day.
func (k *Keeper) keep(ctx context.Context) error {
	took := k.metrics.timer()
	if err := k.fold.Fresh(ctx); err != nil {
		return err
	}
	last, _, err := k.bus.LastRaw(ctx, events.StreamLog, ">")
	if err != nil {
		return err
	}
	r := &run{Keeper: k, due: domain.DueAt(k.retain, last.Time), deleted: map[string]int{}}
	k.fold.Read(func(s *domain.State) { r.late = maps.Clone(s.Late) })
	var errs []error
	// What endpoints said goes when execs have been reduced that it was said of. Progress before documents: a deletion that has left the log no longer says that what a schedule remembered before it is
	// nothing that another one of the same id remembers.
	for _, step := range []func(context.Context) error{r.execs, r.reducedExecs, r.aged, r.ticks, r.progress, r.documents, r.records} {
		if err := step(ctx); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	err = errors.Join(errs...)
	if err == nil {
		k.metrics.lastRun.SetToCurrentTime()
	}
	told := k.logger.With("log_time", last.Time, "took", took(), "reduced", r.reduced, "recounted", r.recounted, "unreadable", r.left, "deleted", r.deleted)
	if err != nil {
		told.Warn("housekeeping of the log broke off; the next run does the rest", "error", err)
	} else {
		told.Info("housekeeping of the log")
	}
	return err
}

// deletionsAtOnce bounds how many deletions are under way: each is a request to the broker.
const deletionsAtOnce = 16

// delete takes facts out of the log, and counts those that were there.
func (r *run) delete(ctx context.Context, kind string, sequences ...uint64) error {
	var gone atomic.Int64
	group, deleting := errgroup.WithContext(ctx)
	group.SetLimit(deletionsAtOnce)
	for _, seq := range sequences {
		group.Go(func() error {
			there, err := r.bus.Delete(deleting, seq)
			if there {
				gone.Add(1)
			}
			return err
		})
	}
	err := group.Wait()
	r.deleted[kind] += int(gone.Load())
	r.metrics.deleted.WithLabelValues(kind).Add(float64(gone.Load()))
	return err
}

// aged takes what ages out of the log. What stays lies before it, but the broker knows in which of its files there is any.
func (r *run) aged(ctx context.Context) error {
	for _, filter := range events.AgingFilters() {
		for next, more := uint64(0), true; more; {
			var old []uint64
			err := r.bus.Walk(ctx, filter, next, func(m bus.RawMsg) (bool, error) {
				if !m.Time.Before(r.due.Aged) {
					return false, nil
				}
				old = append(old, m.Seq)
				return len(old) < deleteStep, nil
			})
			if err == nil {
				err = r.delete(ctx, kindAged, old...)
			}
			if err != nil {
				return fmt.Errorf("forget what has aged on %s: %w", filter, err)
			}
			if more = len(old) == deleteStep; more {
				next = old[deleteStep-1] + 1
			}
		}
	}
	return nil
}

// deleteAll deletes all that an aggregate holds from a sequence on, if the newest of it is older than an instant; the fact
// at last goes last.
func (r *run) deleteAll(ctx context.Context, kind, filter string, from, last uint64, before time.Time) error {
	newest, ok, err := r.bus.LastRaw(ctx, events.StreamLog, filter)
	if err != nil || !ok || !newest.Time.Before(before) {
		return err
	}
	return r.deleteUntil(ctx, kind, filter, from, newest.Seq+1, last)
}

// deleteUntil deletes what an aggregate holds from one sequence on and before another. The fact at last goes when all others
// have: by it the next run finds what this one leaves, should it break off.
func (r *run) deleteUntil(ctx context.Context, kind, filter string, from, until, last uint64) error {
	for next := from; next < until; {
		var sequences []uint64
		seen := next
		err := r.bus.Walk(ctx, filter, next, func(m bus.RawMsg) (bool, error) {
			if seen = m.Seq; seen < until && seen != last {
				sequences = append(sequences, seen)
			}
			return seen+1 < until && len(sequences) < deleteStep, nil
		})
		if err == nil {
			err = r.delete(ctx, kind, sequences...)
		}
		if err != nil {
			return err
		}
		if len(sequences) < deleteStep {
			break
		}
		next = seen + 1
	}
	return r.delete(ctx, kind, last)
}

// deleteStep is how many facts are listed at once: there are as many as endpoints, or runs of a day.
const deleteStep = 10_000
