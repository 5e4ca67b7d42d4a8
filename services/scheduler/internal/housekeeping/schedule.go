package housekeeping

import (
	"context"
	"fmt"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// ticks takes ticks out of the log that are older than the ledger, but for each schedule's newest.
func (r *run) ticks(ctx context.Context) error {
	newest := map[string]uint64{} // by subject, of those that are old
	err := r.bus.Walk(ctx, events.FactFilter(events.AggregateSchedule, "ticked"), 0, func(m bus.RawMsg) (bool, error) {
		if !m.Time.Before(r.due.Ledger) {
			return false, nil
		}
		before := newest[m.Subject]
		newest[m.Subject] = m.Seq
		if before == 0 {
			return true, nil
		}
		return true, r.delete(ctx, kindTick, before)
	})
	if err != nil {
		return err
	}
	for subject, seq := range newest {
		last, ok, err := r.bus.LastRaw(ctx, events.StreamLog, subject)
		if err != nil {
			return err
		}
		if ok && domain.TickLeaves(seq, last.Seq) {
			if err := r.delete(ctx, kindTick, seq); err != nil {
				return err
			}
		}
	}
	return nil
}

// progress takes out of the log what schedules remembered of endpoints and remember otherwise by now. The fold knows which
// fact says last what they remember; it may be ahead of what is looked at, for what it knows is in the log.
func (r *run) progress(ctx context.Context) error {
	err := r.bus.Walk(ctx, events.FactFilter(events.AggregateSchedule, "progressed"), 0, func(m bus.RawMsg) (bool, error) {
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
		if !outlived {
			return true, nil
		}
		return true, r.delete(ctx, kindProgress, m.Seq)
	})
	if err != nil {
		return fmt.Errorf("forget progress of schedules: %w", err)
	}
	return nil
}
