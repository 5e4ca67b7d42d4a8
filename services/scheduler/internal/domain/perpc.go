package domain

import (
	"maps"
	"slices"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// DuePCs are the endpoints that an interval fires at a minute: members of the target that are alive, have no open run
// by it, and were never fired, or were last fired successfully an interval ago, or have waited out their back-off; those
// that have waited longest first, as many as may run at once. None while a gate is closed. The whole target is one entry,
// the empty id, when it is due and somebody in it is alive.
func DuePCs(s *Schedule, fleet Fleet, jobs map[string]string, minute time.Time, p Present) []string {
	x, ok := s.interval()
	if !ok || !minute.After(later(s.Mark, x.At)) || p.Freeze.At(p.Now, p.Local) {
		return nil
	}
	if open, ok := x.spec.NextOpen(minute, p.Gates); !ok || open.After(minute) {
		return nil
	}
	type waiting struct {
		id    string
		since time.Time
	}
	var due []waiting
	look := func(id string) {
		if at, ok := x.dueAt(s.Progress[id], jobs); ok && !at.After(minute) {
			due = append(due, waiting{id, at})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(fleet)) {
		if !Member(x.spec.Target, fleet[id]) || !fleet[id].Alive(p.Now) {
			continue
		}
		if x.whole {
			look(wholeTarget)
			break
		}
		look(id)
	}
	slices.SortStableFunc(due, func(a, b waiting) int { return a.since.Compare(b.since) })
	ids := make([]string, 0, min(len(due), s.free(x, p)))
	for _, w := range due[:cap(ids)] {
		ids = append(ids, w.id)
	}
	slices.Sort(ids)
	return ids
}

// free is how many more endpoints may have an open run.
func (s *Schedule) free(x interval, p Present) int {
	c := x.spec.Constraints
	switch {
	case c == nil || c.MaxConcurrent == nil:
		return maxFree
	case x.whole: // its exec is one, of as many endpoints as there are
		if p.Open >= *c.MaxConcurrent {
			return 0
		}
		return maxFree
	default:
		return max(0, *c.MaxConcurrent-s.open())
	}
}

// maxFree is the free places of a schedule without a limit: those of a plan.
const maxFree = 1 << 20

// NextMinute is the minute at which the next endpoint of an interval is due and its gates are open, always a later one
// than now's. Endpoints that are away have none: their heartbeat asks again. Nor is there one while as many runs are open
// as may be, or while only an operator can end a freeze: what changes that asks again.
func NextMinute(s *Schedule, fleet Fleet, jobs map[string]string, p Present) (time.Time, bool) {
	x, ok := s.interval()
	if !ok || s.free(x, p) == 0 {
		return time.Time{}, false
	}
	next, ok := x.nextDue(s, fleet, jobs, p.Now)
	if !ok {
		return time.Time{}, false
	}
	floor := later(p.Now, later(s.Mark, x.At)).Truncate(time.Minute).Add(time.Minute)
	if s.Held > 0 {
		floor = later(floor, s.Mark.Add(Backoff(s.Held)))
	}
	next = later(next, floor)
	for range 100 { // a freeze may end while a gate is closed, and the other way round
		open, ok := x.spec.NextOpen(upToMinute(next), p.Gates)
		if !ok {
			return time.Time{}, false
		}
		if next, ok = p.Freeze.Open(open, p.Local); !ok || next.Equal(open) {
			return next, ok
		}
	}
	return next, true
}

// nextDue is when the next endpoint that is alive is due; it may have passed.
func (x interval) nextDue(s *Schedule, fleet Fleet, jobs map[string]string, now time.Time) (next time.Time, found bool) {
	for _, e := range fleet {
		if !Member(x.spec.Target, e) || !e.Alive(now) {
			continue
		}
		id := e.PCID
		if x.whole {
			id = wholeTarget
		}
		if at, ok := x.dueAt(s.Progress[id], jobs); ok && (!found || at.Before(next)) {
			next, found = at, true
		}
		if x.whole {
			break
		}
	}
	return next, found
}

func upToMinute(t time.Time) time.Time {
	if m := t.Truncate(time.Minute); m.Before(t) {
		return m.Add(time.Minute)
	}
	return t
}

// Member reports whether an endpoint that is known belongs to a target.
func Member(t catalog.Target, e *Endpoint) bool {
	return e.Known && (e.in(t.All, t.Groups) || slices.Contains(t.PCs, e.PCID))
}

// dueAt is when an endpoint is due again; ok is false while it has an open run, and when it has done what was asked for. The
// zero time is "at once". jobs are the versions of jobs by id.
func (x interval) dueAt(p events.Progress, jobs map[string]string) (time.Time, bool) {
	return x.spec.DueAgain(p, jobs[x.spec.JobID])
}
