package domain

import (
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// OnTime is how late a fire may be and still count as fired; later it is caught up.
const OnTime = time.Minute

// Tick is a decision about one nominal tick, or about a run of them that end alike.
type Tick struct {
	Version  *Version
	Outcome  events.TickOutcome
	Reason   string
	From, To time.Time
	Count    int
}

// Fires reports whether the tick makes an exec.
func (t Tick) Fires() bool { return t.Outcome == events.TickFired || t.Outcome == events.TickCaughtUp }

// Ticks decides every nominal tick of a calendar or cron schedule in (mark, now]. Each version of the schedule rules the
// ticks between its save and the next one. The newest tick is fired, when it is not older than the catch-up window and
// the schedule is still there and enabled; the others before it are missed, those of a disabled version skipped.
// busy says that runs of an earlier tick have not ended.
func Ticks(s *Schedule, now time.Time, local *time.Location, busy bool) []Tick {
	var ticks []Tick
	var newest *Tick
	for i := range s.Versions {
		v, until := &s.Versions[i], now
		if i+1 < len(s.Versions) && s.Versions[i+1].At.Before(now) {
			until = s.Versions[i+1].At
		}
		if v.Spec() == nil {
			continue
		}
		for at := range v.Spec().Due(later(s.Mark, v.At), until, local) {
			if newest != nil {
				ticks = extend(ticks, *newest)
			}
			newest = &Tick{Version: v, From: at, To: at, Count: 1}
			newest.Outcome, newest.Reason = passed(v, at, now)
		}
	}
	if newest == nil {
		return nil
	}
	if v := s.Current(); newest.Reason == events.TickReasonSuperseded && v != nil && v.Spec() != nil && v.Spec().Enabled {
		newest.Outcome, newest.Reason = fire(newest.To, now, busy)
	}
	return extend(ticks, *newest)
}

// passed is how a tick ends that is not fired.
func passed(v *Version, at, now time.Time) (events.TickOutcome, string) {
	switch {
	case !v.Spec().Enabled:
		return events.TickSkipped, events.TickReasonDisabled
	case now.Sub(at) > v.Spec().CatchUpLimit():
		return events.TickMissed, events.TickReasonLate
	default:
		return events.TickMissed, events.TickReasonSuperseded
	}
}

// fire is how the newest tick ends.
func fire(at, now time.Time, busy bool) (events.TickOutcome, string) {
	switch {
	case busy:
		return events.TickSkipped, events.TickReasonOverlap
	case now.Sub(at) > OnTime:
		return events.TickCaughtUp, ""
	default:
		return events.TickFired, ""
	}
}

// extend appends a tick, or lengthens the last one when it ends alike without an exec.
func extend(ticks []Tick, t Tick) []Tick {
	if n := len(ticks); n > 0 && !t.Fires() {
		if last := &ticks[n-1]; last.Outcome == t.Outcome && last.Reason == t.Reason && last.Version == t.Version {
			last.To, last.Count = t.To, last.Count+t.Count
			return ticks
		}
	}
	return append(ticks, t)
}

// NextTick is when a calendar or cron schedule is due next; false when it is disabled, deleted, an interval, or never due
// again.
func NextTick(s *Schedule, local *time.Location) (time.Time, bool) {
	v := s.Current()
	if v == nil || v.Spec() == nil || !v.Spec().Enabled {
		return time.Time{}, false
	}
	return v.Spec().Next(later(s.Mark, v.At), local)
}

// Request is the exec of a tick: the job as it is now, the schedule's plan, and a deadline at the next nominal time, so
// that an endpoint that returns runs the newest tick and not last week's.
func Request(t Tick, scheduleID string, job events.JobSaved, jobSeq uint64, script events.Script, target catalog.Target, deadline time.Time) (events.ExecRequested, error) {
	plan, err := (&catalog.Plan{Target: target}).Document()
	if err != nil {
		return events.ExecRequested{}, err
	}
	nominal := t.To
	return events.ExecRequested{
		ExecID: FireID(scheduleID, nominal), JobID: job.ID, Version: job.Version, JobSequence: jobSeq, JobHash: job.Hash,
		Script: script, Plan: plan, ScheduleID: scheduleID, Nominal: &nominal, DeadlineAt: &deadline,
	}, nil
}

// FireID is the exec of a nominal tick: the same whoever fires it, and however often.
func FireID(scheduleID string, nominal time.Time) string {
	return events.DeriveID(scheduleID, "fire", nominal.UTC().Format(time.RFC3339Nano))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
