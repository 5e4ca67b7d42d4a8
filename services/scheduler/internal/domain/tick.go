package domain

import (
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// OnTime is how late a fire may be and still count as fired; later it is caught up.
const OnTime = time.Minute

// tickLimit is how many nominal ticks are ended at once: a schedule of every second that was disabled for a year has 31
// million.
const tickLimit = 50_000

// Tick is a decision about one nominal tick, or about a run of them that end alike.
type Tick struct {
	Version  Version
	Outcome  events.TickOutcome
	Reason   string
	From, To time.Time
	Count    int
}

// Fires reports whether the tick makes an exec.
func (t Tick) Fires() bool { return t.Outcome == events.TickFired || t.Outcome == events.TickCaughtUp }

// Ticks decides the nominal ticks of a calendar or cron schedule in (mark, now]: all of them, or the first 50 000. Each
// version of the schedule rules the ticks between its save and the next one. The newest tick is fired, when it is not
// older than the catch-up window and the schedule is still there and enabled; the others before it are missed, those of
// a disabled version, and those that fell into the freeze, skipped. busy says that runs of an earlier tick have not ended.
func Ticks(s *Schedule, now time.Time, local *time.Location, freeze Freeze, busy bool) []Tick {
	var ticks []Tick
	var newest *Tick
	seen := 0
	for i := range s.Versions {
		v, until := s.Versions[i], now
		if v.spec == nil {
			continue
		}
		if !v.Until.IsZero() && v.Until.Before(now) {
			until = v.Until
		}
		for at := range v.spec.Due(later(s.Mark, v.At), until, local) {
			if newest != nil {
				ticks = extend(ticks, *newest)
			}
			if seen++; seen > tickLimit {
				return ticks
			}
			newest = &Tick{Version: v, From: at, To: at, Count: 1}
			newest.Outcome, newest.Reason = passed(v.spec, at, now, freeze.Held(at, local))
		}
	}
	if newest == nil {
		return nil
	}
	if v := s.Current(); newest.Reason == events.TickReasonSuperseded && v != nil && v.spec != nil && v.spec.Enabled {
		newest.Outcome, newest.Reason = fire(newest.To, now, freeze.At(now, local), busy)
	}
	return extend(ticks, *newest)
}

// passed is how a tick ends that is not fired.
func passed(spec *catalog.Schedule, at, now time.Time, frozen bool) (events.TickOutcome, string) {
	switch {
	case !spec.Enabled:
		return events.TickSkipped, events.TickReasonDisabled
	case frozen:
		return events.TickSkipped, events.TickReasonFrozen
	case now.Sub(at) > spec.CatchUpLimit():
		return events.TickMissed, events.TickReasonLate
	default:
		return events.TickMissed, events.TickReasonSuperseded
	}
}

// fire is how the newest tick ends.
func fire(at, now time.Time, frozen, busy bool) (events.TickOutcome, string) {
	switch {
	case frozen:
		return events.TickSkipped, events.TickReasonFrozen
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
		if last := &ticks[n-1]; last.Outcome == t.Outcome && last.Reason == t.Reason && last.Version.Seq == t.Version.Seq {
			last.To, last.Count = t.To, last.Count+t.Count
			return ticks
		}
	}
	return append(ticks, t)
}

// NextTick is the first tick of a calendar or cron schedule that is not in the ledger, and the version that made it. It
// may have passed: a version that has been replaced leaves its ticks to be ended at once. False when there is none: the
// schedule is deleted, an interval, or never due again. Those of a disabled version are ended with the next tick after
// it, or when it is replaced.
func NextTick(s *Schedule, local *time.Location) (at time.Time, version uint64, ok bool) {
	for i := range s.Versions {
		v := &s.Versions[i]
		if v.Until.IsZero() && (v.spec == nil || !v.spec.Enabled) {
			continue
		}
		if at, ok := v.next(s.Mark, local); ok {
			return at, v.Seq, true
		}
	}
	return time.Time{}, 0, false
}

// Request is the exec of a tick: the job as it is now, the schedule's plan, and a deadline at the next nominal time, so
// that an endpoint that returns runs the newest tick and not last week's.
func Request(t Tick, scheduleID string, job events.JobSaved, jobSeq uint64, script events.Script, plan catalog.Plan, deadline time.Time) (events.ExecRequested, error) {
	plan.DeadlineAt = nil // the tick's takes its place
	document, err := plan.Document()
	if err != nil {
		return events.ExecRequested{}, err
	}
	nominal := t.To
	return events.ExecRequested{
		ExecID: FireID(scheduleID, nominal), JobID: job.ID, Version: job.Version, JobSequence: jobSeq, JobHash: job.Hash,
		Script: script, Plan: document, ScheduleID: scheduleID, Nominal: &nominal, DeadlineAt: &deadline,
		Retry: t.Version.spec.RetryPolicy().Resolve(),
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
