package domain

import (
	"maps"
	"slices"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// DuePCs are the endpoints that an interval fires at a minute: members of the target that are alive, have no open run
// by it, and were never fired, or were last fired successfully an interval ago, or have waited out their back-off.
func DuePCs(s *Schedule, fleet Fleet, minute, now time.Time) []string {
	v, every, ok := s.interval()
	if !ok || !minute.After(later(s.Mark, v.At)) {
		return nil
	}
	var due []string
	for _, id := range slices.Sorted(maps.Keys(fleet)) {
		if !member(v.spec.Target, fleet[id]) || !fleet[id].Alive(now) {
			continue
		}
		if at, ok := dueAt(s.Progress[id], every); ok && !at.After(minute) {
			due = append(due, id)
		}
	}
	return due
}

// NextMinute is the minute at which the next endpoint of an interval is due, always a later one than now's. Endpoints that are away have none: their
// heartbeat asks again.
func NextMinute(s *Schedule, fleet Fleet, now time.Time) (time.Time, bool) {
	v, every, ok := s.interval()
	if !ok {
		return time.Time{}, false
	}
	floor := later(now, later(s.Mark, v.At)).Truncate(time.Minute).Add(time.Minute)
	var next time.Time
	for _, e := range fleet {
		if !member(v.spec.Target, e) || !e.Alive(now) {
			continue
		}
		at, ok := dueAt(s.Progress[e.PCID], every)
		if !ok {
			continue
		}
		minute := at.Truncate(time.Minute)
		if minute.Before(at) {
			minute = minute.Add(time.Minute)
		}
		if minute.Before(floor) {
			minute = floor
		}
		if next.IsZero() || minute.Before(next) {
			next = minute
		}
	}
	return next, !next.IsZero()
}

func member(t catalog.Target, e *Endpoint) bool {
	return e.Known && (e.in(t.All, t.Groups) || slices.Contains(t.PCs, e.PCID))
}

// dueAt is when an endpoint is due again; ok is false while it has an open run. The zero time is "at once".
func dueAt(p events.Progress, every time.Duration) (time.Time, bool) {
	switch {
	case p.ExecID != "":
		return time.Time{}, false
	case p.NotBefore != nil:
		return *p.NotBefore, true
	case p.Succeeded != nil:
		return p.Succeeded.Add(every), true
	default:
		return time.Time{}, true
	}
}
