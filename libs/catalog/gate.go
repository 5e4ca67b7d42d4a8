package catalog

import (
	"slices"
	"strings"
	"time"

	"kanade/libs/events"
)

// Gates are what a schedule's gates depend on beside the schedule.
type Gates struct {
	// Local is what the zone local means.
	Local *time.Location
	// Calendars are the named calendars by id. One that a schedule names and that is not there closes nothing.
	Calendars map[string]*DayCalendar
}

// Lasts is the span in which the schedule has ticks, [from, until): its active bounds. A zero one is open, and so is one
// that can't be read.
func (s *Schedule) Lasts(local *time.Location) (from, until time.Time) {
	zone, err := s.Location(local)
	if s.Active == nil || err != nil {
		return from, until
	}
	from, _ = Bound(s.Active.From, zone)
	until, _ = Bound(s.Active.Until, zone)
	return from, until
}

// Closed says why a tick that is due at an instant does not fire: one of events.TickReasonWindow, TickReasonSkipDate,
// TickReasonCalendar; empty when it may. Whether the schedule is enabled, and the freeze, are for the caller. A window
// that can't be read is closed.
func (s *Schedule) Closed(at time.Time, g Gates) string {
	zone, err := s.Location(g.Local)
	if err != nil {
		return events.TickReasonWindow
	}
	civil := reading(at, zone)
	if reason, _ := s.closedDay(civil, g); reason != "" {
		return reason
	}
	if start, end, ok := s.window(); !ok || !inWindow(civil, start, end) {
		return events.TickReasonWindow
	}
	return ""
}

// ClosedBy names the calendars that close the day of an instant: a blackout one that has it, or all allow ones, of which
// none has it. None do where Closed gives another reason.
func (s *Schedule) ClosedBy(at time.Time, g Gates) []string {
	zone, err := s.Location(g.Local)
	if err != nil {
		return nil
	}
	_, by := s.closedDay(reading(at, zone), g)
	return by
}

// closedDay says why the day of a reading is closed, and by which calendars.
func (s *Schedule) closedDay(civil time.Time, g Gates) (reason string, by []string) {
	day := civil.Format(time.DateOnly)
	if s.Constraints != nil && slices.Contains(s.Constraints.SkipDates, day) {
		return events.TickReasonSkipDate, nil
	}
	var allow []string
	allowed := false
	for _, id := range s.Calendars {
		c := g.Calendars[id]
		switch {
		case c == nil:
		case c.Kind == Allow:
			allow, allowed = append(allow, id), allowed || c.holds(day)
		case c.holds(day):
			return events.TickReasonCalendar, []string{id}
		}
	}
	if len(allow) > 0 && !allowed {
		return events.TickReasonCalendar, allow
	}
	return "", nil
}

// window is the time of day at which the gate opens and closes; both zero: it is always open. ok is false when it can't be
// read.
func (s *Schedule) window() (start, end time.Duration, ok bool) {
	if s.Constraints == nil || s.Constraints.Window == "" {
		return 0, 0, true
	}
	start, end, ok = parseWindow(s.Constraints.Window)
	return start, end, ok && start != end
}

// parseWindow reads HH:MM-HH:MM.
func parseWindow(text string) (start, end time.Duration, ok bool) {
	first, second, _ := strings.Cut(text, "-")
	from, errFrom := time.Parse("15:04", first)
	to, errTo := time.Parse("15:04", second)
	return timeOfDay(from), timeOfDay(to), errFrom == nil && errTo == nil
}

func timeOfDay(civil time.Time) time.Duration {
	return time.Duration(civil.Hour())*time.Hour + time.Duration(civil.Minute())*time.Minute + time.Duration(civil.Second())*time.Second
}

func inWindow(civil time.Time, start, end time.Duration) bool {
	at := timeOfDay(civil)
	switch {
	case start == end:
		return true
	case start < end:
		return start <= at && at < end
	default:
		return start <= at || at < end
	}
}

// openSteps bounds the search for an open gate: a step is a day at most.
const openSteps = 366 * searchYears

// NextOpen is the first full minute, at or after a full minute, at which the schedule lasts and its gates are open; false
// when there is none within nine years. It is for intervals, which wait for their gates.
func (s *Schedule) NextOpen(minute time.Time, g Gates) (time.Time, bool) {
	zone, err := s.Location(g.Local)
	start, end, ok := s.window()
	if err != nil || !ok {
		return time.Time{}, false
	}
	from, until := s.Lasts(g.Local)
	if minute.Before(from) {
		minute = from
	}
	for range openSteps {
		minute = fullMinute(minute)
		if !until.IsZero() && !minute.Before(until) {
			return time.Time{}, false
		}
		civil := reading(minute, zone)
		midnight := civil.Truncate(24 * time.Hour)
		reason, _ := s.closedDay(civil, g)
		switch {
		case reason != "":
			civil = midnight.AddDate(0, 0, 1)
		case inWindow(civil, start, end):
			return minute.UTC(), true
		case timeOfDay(civil) < start:
			civil = midnight.Add(start)
		default:
			civil = midnight.AddDate(0, 0, 1).Add(start)
		}
		next := instant(civil, zone)
		if !next.After(minute) { // the reading came before, too, and the clock was put back
			next = minute.Add(time.Minute)
		}
		if _, end := bounds(minute.In(zone)); !end.IsZero() && end.Before(next) {
			next = end // a clock that is put back may show the open gate once more
		}
		minute = next
	}
	return time.Time{}, false
}

func fullMinute(t time.Time) time.Time {
	if m := t.Truncate(time.Minute); m.Before(t) {
		return m.Add(time.Minute)
	}
	return t
}
