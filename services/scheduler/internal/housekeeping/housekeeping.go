// Package housekeeping keeps the log as small as what the installation remembers: once a day it reduces execs that are older
// than the history to one fact, and takes out of the log what has had its time; sooner where the log is nearly full. What that
// is decides domain.
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
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sort"
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

// Due handles the timer of a day. A log that is full gives up the days that are over for the new one. One that has not even
// that room takes no tick and is cleaned all the same; the next sweep of the supervisor sets the day's timer again.
func (k *Keeper) Due(ctx context.Context, t bus.Timer) error {
	err := k.tick(ctx, t)
	if errors.Is(err, bus.ErrLogFull) {
		if err = k.forgetDays(ctx); err == nil {
			err = k.tick(ctx, t)
		}
	}
	switch {
	case errors.Is(err, bus.ErrLogFull):
		k.logger.Warn("the log is full: the clock can't tick; cleaning what can be", "error", err)
	case err != nil:
		return err
	}
	return k.keep(ctx)
}

// nearlyFull is the share of the log's bytes from which on Relieve does something.
const nearlyFull = 0.9

// Relieve keeps house at once where the log is nearly full: neither facts that are old enough nor whoever has shortened the
// history need wait for midnight.
func (k *Keeper) Relieve(ctx context.Context) error {
	share, err := k.bus.Share(ctx, events.StreamLog)
	if err != nil || share < nearlyFull {
		return err
	}
	k.logger.Warn("the log is nearly full: cleaning what can be", "share", share)
	return k.keep(ctx)
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

// forgetDays takes the days of the clock out of the log but for the newest, from which alone follows what comes next.
func (k *Keeper) forgetDays(ctx context.Context) error {
	var days []uint64
	err := k.bus.Walk(ctx, events.AggregateFilter(events.AggregateClock, events.ClockID), 0, func(m bus.RawMsg) (bool, error) {
		days = append(days, m.Seq)
		return true, nil
	})
	if err == nil && len(days) > 0 {
		r := &run{Keeper: k, deleted: map[string]int{}}
		err = r.delete(ctx, kindAged, days[:len(days)-1]...)
	}
	if err != nil {
		return fmt.Errorf("make room for the clock: %w", err)
	}
	return nil
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
	// last is the log's last sequence when the run began.
	last uint64
	// late are the execs whose totals have to be counted anew.
	late    map[string]time.Time
	deleted map[string]int
	// reduced counts execs, recounted those of them whose totals were counted anew, left those that could not be read.
	reduced, recounted, left int
	// full: the log took no fact that a step had to append.
	full   bool
	failed []error
}

// keep does all the work of a day. A log that is full is no error: what needs room there is left to the next run.
func (k *Keeper) keep(ctx context.Context) error {
	took := k.metrics.timer()
	if err := k.fold.Fresh(ctx); err != nil {
		return err
	}
	last, _, err := k.bus.LastRaw(ctx, events.StreamLog, ">")
	if err != nil {
		return err
	}
	r := &run{Keeper: k, due: domain.DueAt(k.retain, last.Time), last: last.Seq, deleted: map[string]int{}}
	k.fold.Read(func(s *domain.State) { r.late = maps.Clone(s.Late) })
	// What endpoints said goes only when the execs have been reduced of which they said it, but for a full log, where it makes
	// room for that.
	if r.step(ctx, r.execs) && r.step(ctx, r.aged) && r.full {
		r.full = false
		r.step(ctx, r.execs)
	}
	// Progress before documents: a deletion that has left the log no longer says that what a schedule remembered before it is
	// nothing that another one of the same id remembers.
	for _, step := range []func(context.Context) error{r.reducedExecs, r.ticks, r.progress, r.documents, r.records} {
		r.step(ctx, step)
	}
	err = errors.Join(append(r.failed, ctx.Err())...)
	if err == nil && !r.full {
		k.metrics.lastRun.SetToCurrentTime()
	}
	told := k.logger.With("log_time", last.Time, "took", took(), "reduced", r.reduced, "recounted", r.recounted, "unreadable", r.left, "deleted", r.deleted)
	switch {
	case err != nil:
		told.Warn("housekeeping of the log broke off; the next run does the rest", "error", err)
		return fmt.Errorf("keep house: %w", err)
	case r.full:
		told.Warn("housekeeping of a log that is full: some execs are not reduced; the next run does the rest")
	default:
		told.Info("housekeeping of the log")
	}
	return nil
}

// step does a part of the work unless it is time to end, notes what has failed, and reports whether nothing has.
func (r *run) step(ctx context.Context, do func(context.Context) error) bool {
	if ctx.Err() != nil {
		return false
	}
	err := do(ctx)
	if errors.Is(err, bus.ErrLogFull) {
		r.full, err = true, nil
	}
	if err != nil {
		r.failed = append(r.failed, err)
	}
	return err == nil
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

// aged takes what ages out of the log, in one pass over it from the first message of those subjects on. Whatever is read
// by pages costs the broker a look at every subject of the stream for each of them.
func (r *run) aged(ctx context.Context) error {
	first := r.last
	for _, filter := range events.AgingFilters() {
		err := r.bus.Walk(ctx, filter, 0, func(m bus.RawMsg) (bool, error) {
			first = min(first, m.Seq)
			return false, nil
		})
		if err != nil {
			return fmt.Errorf("look for what has aged: %w", err)
		}
	}
	err := r.pass(ctx, first, r.last, func(ctx context.Context, batch []bus.RawMsg) (more bool, err error) {
		var old []uint64
		for _, m := range batch {
			if more = m.Time.Before(r.due.Aged); !more {
				break
			}
			if events.Ages(m.Header) {
				old = append(old, m.Seq)
			}
		}
		return more, r.delete(ctx, kindAged, old...)
	})
	if err != nil {
		return fmt.Errorf("forget what has aged: %w", err)
	}
	return nil
}

// errPassed ends a pass over the log.
var errPassed = errors.New("passed")

// pass reads the log from one sequence to another until look says that it has seen enough. It leaves a consumer at the broker
// for some minutes.
func (r *run) pass(ctx context.Context, from, to uint64, look func(context.Context, []bus.RawMsg) (more bool, err error)) error {
	err := r.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog, From: from, Name: "housekeeping"}, func(ctx context.Context, batch []bus.RawMsg) error {
		n := sort.Search(len(batch), func(i int) bool { return batch[i].Seq > to })
		more, err := look(ctx, batch[:n])
		if end := n < len(batch) || batch[n-1].Seq == to; err == nil && (end || !more) {
			err = errPassed
		}
		return cmp.Or(err, ctx.Err())
	})
	if errors.Is(err, errPassed) {
		return nil
	}
	return errors.Join(err, ctx.Err())
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

// deleteStep is how many facts of an aggregate are listed at once: an exec that goes out in parts has one for each endpoint.
const deleteStep = 10_000
