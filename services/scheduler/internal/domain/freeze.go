package domain

import (
	"time"

	"kanade/libs/events"
)

// Freeze is the freeze of the fleet: schedules do not fire while it lasts. The zero value is none.
type Freeze struct {
	// Saved is nil when there is none.
	Saved *events.FreezeSaved `json:"saved,omitempty"`
	// Since is when the broker stored it: it holds back nothing that was due before.
	Since time.Time `json:"since,omitzero"`
}

// Save takes a freeze in that the broker stored at an instant; it replaces the one before.
func (f *Freeze) Save(p events.FreezeSaved, at time.Time) { *f = Freeze{Saved: &p, Since: at} }

// Clear ends it.
func (f *Freeze) Clear() { *f = Freeze{} }

// At reports whether the fleet is frozen at an instant, by the freeze as it is known now: from its first bound, inclusive,
// to its second, exclusive. local is what the zone "local" means. What can't be read counts as frozen.
func (f *Freeze) At(now time.Time, local *time.Location) bool {
	if f.Saved == nil {
		return false
	}
	from, until, ok := f.bounds(local)
	return !ok || !now.Before(from) && (until.IsZero() || now.Before(until))
}

// Held reports whether the fleet was frozen when a tick was due, and known to be: such a tick is not caught up either.
func (f *Freeze) Held(nominal time.Time, local *time.Location) bool {
	return !nominal.Before(f.Since) && f.At(nominal, local)
}

// Open is the first full minute at or after a full minute at which the fleet is not frozen; false while only an operator
// can say.
func (f *Freeze) Open(minute time.Time, local *time.Location) (time.Time, bool) {
	if !f.At(minute, local) {
		return minute, true
	}
	_, until, ok := f.bounds(local)
	if !ok || until.IsZero() {
		return time.Time{}, false
	}
	open := until.Truncate(time.Minute)
	if open.Before(until) {
		open = open.Add(time.Minute)
	}
	return open.UTC(), true
}

// bounds are the freeze's; a zero one is open. False when something in it can't be read.
func (f *Freeze) bounds(local *time.Location) (from, until time.Time, ok bool) {
	zone, ok := FreezeZone(f.Saved.TZ, local)
	if !ok {
		return from, until, false
	}
	from, fromOK := FreezeBound(f.Saved.From, zone)
	until, untilOK := FreezeBound(f.Saved.Until, zone)
	return from, until, fromOK && untilOK
}

// FreezeZone is the zone in which the dates of a freeze are read: local (also when empty), utc or one of IANA's names.
func FreezeZone(name string, local *time.Location) (*time.Location, bool) {
	switch name {
	case "", "local":
		return local, true
	case "utc":
		return time.UTC, true
	case "Local":
		return nil, false // the name of the host's zone in the library, which nobody means
	}
	zone, err := time.LoadLocation(name)
	return zone, err == nil
}

// FreezeBound reads a bound: RFC 3339, or a date for the first instant of that day in a zone. An empty one is the zero
// time. False when it can't be read.
func FreezeBound(text string, zone *time.Location) (time.Time, bool) {
	if text == "" {
		return time.Time{}, true
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, true
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return time.Time{}, false
	}
	return firstOf(day, zone), true
}

// firstOf is the first instant of a day, whose midnight may exist twice or not at all.
func firstOf(day time.Time, zone *time.Location) time.Time {
	y, m, d := day.Date()
	t := time.Date(y, m, d, 0, 0, 0, 0, zone)
	start, end := t.ZoneBounds()
	if shown := civil(t); shown.Before(day) {
		return end // taken at the offset after the gap, so before it
	}
	if !start.IsZero() {
		_, offset := start.Add(-1).Zone()
		if first := day.Add(-time.Duration(offset) * time.Second); first.Before(start) && civil(first.In(zone)).Equal(day) {
			return first.In(zone)
		}
	}
	return t
}

// civil is what a clock shows at an instant, held in UTC.
func civil(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}
