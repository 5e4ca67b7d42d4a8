package journal

import (
	"context"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// SaveCalendar stores a named calendar.
func (j *Journal) SaveCalendar(ctx context.Context, c Caller, d *catalog.DayCalendar, text string, t catalog.SourceType) (uint64, error) {
	return j.writeCalendar(ctx, c, d.ID, factCalendarSaved, func(_ context.Context, cur domain.Calendar) (events.Payload, error) {
		saved, err := domain.SaveCalendar(cur, d, text, t, c.Match)
		if saved == nil {
			return nil, err
		}
		return *saved, err
	})
}

// DeleteCalendar deletes a named calendar unless a schedule names it. namedBy lists those that do, as of at least a
// sequence of the log that it is given. A schedule that is saved at the same moment may be left with a calendar that is
// gone, which closes nothing; its preview says so.
func (j *Journal) DeleteCalendar(
	ctx context.Context, c Caller, id string, namedBy func(ctx context.Context, sequence uint64) ([]string, error),
) (uint64, error) {
	return j.writeCalendar(ctx, c, id, factCalendarDeleted, func(ctx context.Context, cur domain.Calendar) (events.Payload, error) {
		last, err := j.bus.LastSeq(ctx, events.StreamLog)
		if err != nil {
			return nil, err
		}
		names, err := namedBy(ctx, last)
		if err != nil {
			return nil, err
		}
		deleted, err := domain.DeleteCalendar(cur, id, names, c.Match)
		if deleted == nil {
			return nil, err
		}
		return *deleted, err
	})
}

func (j *Journal) writeCalendar(
	ctx context.Context, c Caller, id, fact string, decide func(context.Context, domain.Calendar) (events.Payload, error),
) (uint64, error) {
	s := subject{aggregate: events.AggregateConfig, id: events.CalendarID(id), fact: fact}
	return j.write(ctx, c, s, func(ctx context.Context) (decision, error) {
		cur, err := j.calendar(ctx, id)
		if err != nil {
			return decision{}, err
		}
		p, err := decide(ctx, cur)
		return decision{fact: p, sequence: cur.Seq, expected: cur.Last}, err
	})
}

func (j *Journal) calendar(ctx context.Context, id string) (domain.Calendar, error) {
	return only[events.CalendarSaved](ctx, j.bus, events.AggregateConfig, events.CalendarID(id))
}

// checkCalendars refuses a schedule that names a calendar that is not there.
func (j *Journal) checkCalendars(ctx context.Context, s *catalog.Schedule) error {
	known := map[string]bool{}
	for _, id := range s.Calendars {
		cur, err := j.calendar(ctx, id)
		if err != nil {
			return err
		}
		known[id] = cur.Saved != nil
	}
	return domain.CheckCalendars(s, func(id string) bool { return known[id] })
}
