package domain

import (
	"time"

	"kanade/libs/catalog"
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
	saved := catalog.Freeze{From: f.Saved.From, Until: f.Saved.Until, TZ: catalog.FreezeZone(f.Saved.TZ)}
	return saved.Span(local)
}
