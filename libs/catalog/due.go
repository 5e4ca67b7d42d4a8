package catalog

import (
	"fmt"
	"iter"
	"sync/atomic"
	"time"
)

// remembered is what makes asking for times often cheap. Safe for concurrent use.
type remembered struct {
	zone *time.Location // that TZ names; nil where it is local
	spec *spec          // nil for forms without due times
	last atomic.Pointer[answer]
}

// answer is the last one of clock.next: whoever ends a tick asks for the time after it again and again.
type answer struct {
	after, next time.Time
	zone        *time.Location
	ok          bool
}

// Location is the zone that the schedule's times are read in; see [Zone].
func (s *Schedule) Location(local *time.Location) (*time.Location, error) {
	if s.remembered != nil && s.remembered.zone != nil {
		return s.remembered.zone, nil
	}
	return Zone(s.TZ, local)
}

// Remember keeps the zone that TZ names, the parsed form, and the last due time that was asked for. It is for whoever asks often
// and changes nothing of the schedule any more: to load a zone is to read a file, 30 µs each time, to parse a cron takes a few.
// The zone is taken from zones, which holds zones by name for any number of schedules, and put there if it is missing.
func (s *Schedule) Remember(zones map[string]*time.Location) {
	r := &remembered{zone: zones[s.TZ]}
	if r.zone == nil {
		if zone, err := Zone(s.TZ, nil); zone != nil && err == nil { // local is nobody's to keep
			r.zone, zones[s.TZ] = zone, zone
		}
	}
	r.spec, _ = s.When.spec()
	s.remembered = r
}

// Next is the first nominal time after another of a schedule of the forms calendar and cron; false for the other forms,
// when nothing is due any more, or not within nine years. A schedule has no ticks outside of its active bounds; its other
// gates are not looked at ([Schedule.Closed]). The answer is in UTC. See [Schedule.Due] for what happens at changes of the
// clock.
func (s *Schedule) Next(after time.Time, local *time.Location) (time.Time, bool) {
	c, err := s.clock(local)
	if err != nil {
		return time.Time{}, false
	}
	return c.next(after)
}

// Between lists the nominal times in (after, until], oldest first, at most limit of them.
func (s *Schedule) Between(after, until time.Time, local *time.Location, limit int) []time.Time {
	var due []time.Time
	for t := range s.Due(after, until, local) {
		if len(due) == limit {
			break
		}
		due = append(due, t)
	}
	return due
}

// Due yields the nominal times in (after, until], oldest first, each once, in UTC.
//
// A time of day that does not exist on some day, because the clock is put forward over it, is due at the first instant
// after the gap; one that exists twice is due the first time only. A cron whose hour field is * or */n follows elapsed
// time instead: it is due at every instant that reads right, both times where the clock is put back; a reading in a gap
// is due when it would have been had the clock not been changed.
func (s *Schedule) Due(after, until time.Time, local *time.Location) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		c, err := s.clock(local)
		if err != nil {
			return
		}
		for {
			t, ok := c.next(after)
			if !ok || t.After(until) || !yield(t) {
				return
			}
			after = t
		}
	}
}

// clock is a spec in a zone, and the span in which it counts.
type clock struct {
	*spec
	zone        *time.Location
	from, until time.Time
	remembered  *remembered // may be nil
}

func (s *Schedule) clock(local *time.Location) (clock, error) {
	zone, err := s.Location(local)
	if err != nil {
		return clock{}, err
	}
	c := clock{zone: zone, remembered: s.remembered}
	if c.remembered != nil {
		c.spec = c.remembered.spec
	}
	if c.spec == nil {
		c.spec, err = s.When.spec()
	}
	if c.spec == nil && err == nil {
		err = fmt.Errorf("%s has no due times", s.WhenText())
	}
	c.from, c.until = s.Lasts(local)
	return c, err
}

func (c clock) next(after time.Time) (time.Time, bool) {
	if c.remembered == nil {
		return c.nextWithin(after)
	}
	if a := c.remembered.last.Load(); a != nil && a.after.Equal(after) && a.zone == c.zone {
		return a.next, a.ok
	}
	next, ok := c.nextWithin(after)
	c.remembered.last.Store(&answer{after, next, c.zone, ok})
	return next, ok
}

// nextWithin is next, reckoned.
func (c clock) nextWithin(after time.Time) (time.Time, bool) {
	if before := c.from.Add(-1); !c.from.IsZero() && after.Before(before) {
		after = before
	}
	t, ok := c.nextEver(after)
	if !ok || !c.until.IsZero() && !t.Before(c.until) {
		return time.Time{}, false
	}
	return t, true
}

// nextEver is next without bounds.
func (c clock) nextEver(after time.Time) (time.Time, bool) {
	if c.interval {
		return c.nextElapsed(after)
	}
	civil := reading(after, c.zone)
	for {
		var ok bool
		if civil, ok = c.spec.next(civil); !ok {
			return time.Time{}, false
		}
		// Instants never fall while readings rise, but several readings of a gap share one.
		if t := instant(civil, c.zone); t.After(after) {
			return t, true
		}
	}
}

// reading is what a wall clock shows at an instant, held in UTC.
func reading(t time.Time, zone *time.Location) time.Time {
	_, offset := t.In(zone).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// instant is when a wall clock shows a reading: the first time if it does so twice, the first instant after the gap if
// never.
func instant(civil time.Time, zone *time.Location) time.Time {
	y, m, d := civil.Date()
	t := time.Date(y, m, d, civil.Hour(), civil.Minute(), civil.Second(), 0, zone)
	start, end := bounds(t)
	shown := reading(t, zone)
	switch {
	case shown.After(civil):
		return start.UTC()
	case shown.Before(civil):
		return end.UTC()
	case start.IsZero():
		return t.UTC()
	}
	if earlier := shifted(civil, offsetBefore(start)); earlier.Before(t) && reading(earlier, zone).Equal(civil) {
		return earlier
	}
	return t.UTC()
}

// bounds is a span around an instant in which the zone's offset is constant; a zero bound is open. The standard library
// counts 365 days for every year when it goes by a zone's rule rather than its table: on the last day of a leap year it
// gives an end that has passed.
func bounds(t time.Time) (start, end time.Time) {
	start, end = t.ZoneBounds()
	if !end.IsZero() && !end.After(t) {
		end = time.Date(t.UTC().Year()+1, 1, 1, 0, 0, 0, 0, time.UTC).In(t.Location())
	}
	return start, end
}

// shifted takes a reading for an instant at a fixed offset.
func shifted(civil time.Time, offset time.Duration) time.Time { return civil.Add(-offset) }

// offsetBefore is the offset that a change of the clock ended.
func offsetBefore(start time.Time) time.Duration {
	_, offset := start.Add(-1).Zone()
	return time.Duration(offset) * time.Second
}

// nextElapsed goes from one change of the clock to the next: between two of them readings and instants differ by a
// constant.
func (c clock) nextElapsed(after time.Time) (time.Time, bool) {
	limit := after.AddDate(searchYears, 0, 0)
	for after.Before(limit) {
		here := after.In(c.zone)
		// The second after is what counts: it may already belong to the next offset.
		start, end := bounds(here.Add(time.Second))
		_, seconds := here.Add(time.Second).Zone()
		offset := time.Duration(seconds) * time.Second
		civil, found := c.spec.next(after.UTC().Add(offset))
		due := shifted(civil, offset)
		found = found && (end.IsZero() || due.Before(end))
		if !start.IsZero() {
			if late, ok := c.late(after, start, offset); ok && (!found || late.Before(due)) {
				return late, true
			}
		}
		if found {
			return due, true
		}
		if end.IsZero() {
			return time.Time{}, false
		}
		after = end.Add(-time.Second)
	}
	return time.Time{}, false
}

// late finds a reading of the gap that ended at start, due after an instant, taken at the offset before the gap.
func (c clock) late(after, start time.Time, offset time.Duration) (time.Time, bool) {
	before := offsetBefore(start)
	civil, ok := c.spec.next(after.UTC().Add(before))
	inGap := !civil.Before(start.UTC().Add(before)) && civil.Before(start.UTC().Add(offset))
	return shifted(civil, before), ok && inGap
}
