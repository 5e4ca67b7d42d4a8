package housekeeping

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// ticks takes ticks out of the log that are older than the ledger, but for each schedule's newest.
func (r *run) ticks(ctx context.Context) error {
	lastOld := map[string]uint64{} // by subject
	err := r.bus.Walk(ctx, events.FactFilter(events.AggregateSchedule, "ticked"), func(m bus.RawMsg) (bool, error) {
		if !m.Time.Before(r.due.Ledger) {
			return false, nil
		}
		lastOld[m.Subject] = m.Seq
		return true, nil
	})
	if err != nil {
		return err
	}
	for subject, seq := range lastOld {
		newest, ok, err := r.bus.LastRaw(ctx, events.StreamLog, subject)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := r.purge(ctx, kindTick, subject, domain.TicksBefore(seq, newest.Seq)); err != nil {
			return err
		}
	}
	return nil
}

// deletionsAtOnce bounds how many deletions are under way: each is a request to the broker.
const deletionsAtOnce = 16

// progress takes out of the log what schedules remembered of endpoints and remember otherwise by now. The fold knows which
// fact says last what they remember; it may be ahead of what is looked at, for what it knows is in the log.
func (r *run) progress(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deletionsAtOnce)
	var gone atomic.Int64
	err := r.bus.Walk(ctx, events.FactFilter(events.AggregateSchedule, "progressed"), func(m bus.RawMsg) (bool, error) {
		if !m.Time.Before(r.due.Slack) {
			return false, nil
		}
		s, err := m.Stored()
		if err != nil {
			return true, r.leave(m.Subject, err)
		}
		payload, err := s.Payload()
		if err != nil {
			return true, r.leave(m.Subject, err)
		}
		p, ok := payload.(events.ScheduleProgressed)
		outlived := false
		r.fold.Read(func(s *domain.State) {
			if x := s.Schedules[p.ID]; ok && x != nil {
				outlived = x.Outlived(m.Seq, p.Changes, r.due.Ledger)
			}
		})
		if outlived {
			group.Go(func() error {
				there, err := r.bus.Delete(ctx, m.Seq)
				if there {
					gone.Add(1)
				}
				return err
			})
		}
		return true, nil
	})
	err = errors.Join(err, group.Wait())
	r.count(kindProgress, int(gone.Load()))
	if err != nil {
		return fmt.Errorf("forget progress of schedules: %w", err)
	}
	return nil
}
