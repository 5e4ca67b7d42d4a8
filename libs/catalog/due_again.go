package catalog

import (
	"cmp"
	"time"

	"kanade/libs/events"
)

// Cadence is how a schedule of the forms per_pc and per_target fires; nil for the forms that have nominal times.
func (s *Schedule) Cadence() *Cadence {
	if s.When.PerTarget != nil {
		return s.When.PerTarget
	}
	return s.When.PerPC
}

// DueAgain is when a schedule with a cadence fires an endpoint again (or, per_target, its target), by what it remembers of
// it. The zero time is "at once". False while it has an open run, when it has done what was asked for, and for other
// schedules. version is the job's present one; empty: not known.
func (s *Schedule) DueAgain(p events.Progress, version string) (time.Time, bool) {
	c := s.Cadence()
	every, interval := s.Every()
	switch {
	case c == nil, c.Word == "" && (!interval || every <= 0), p.ExecID != "":
		return time.Time{}, false
	case p.NotBefore != nil:
		return *p.NotBefore, true
	case p.Succeeded == nil:
		return time.Time{}, true
	case c.Word == "":
		return p.Succeeded.Add(every), true
	case c.Word == OncePerVersion:
		return time.Time{}, p.Version != cmp.Or(version, p.Version)
	default:
		return time.Time{}, false
	}
}
