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

// Present is what ticks are decided on beside the schedule.
type Present struct {
	Now time.Time
	// Gates are the installation's: its zone and its named calendars.
	catalog.Gates
	Freeze Freeze
	// Busy: runs of an earlier tick have not ended. Open is how many endpoints have a command of the schedule, or may have,
	// and have not answered.
	Busy bool
	Open int
	// Reach is how many endpoints a tick goes to; it is counted for schedules with a limit only.
	Reach int
}

// Ticks decides the nominal ticks of a calendar or cron schedule in (mark, now]: all of them, or the first 50 000. Each
// version of the schedule rules the ticks between its save and the next one. Those of a disabled version are skipped, and
// so are those that fell into the freeze or on which a gate was closed; what is older than the catch-up window, or than the
// starting deadline, is missed. Of the others, as long as the schedule is there and enabled, the newest is fired, or with
// catch_up: all each of them, or with none the newest if it is on time; the rest is missed. What is fired late has to find
// the gates open now, too. With overlap: queue, what is to be fired while an earlier one runs is left for later, with
// whatever follows it.
func Ticks(s *Schedule, p Present) []Tick {
	found, more := passed(s, p)
	var ticks []Tick
	last := -1
	for i := range found {
		if found[i].Outcome == "" {
			last = i
		}
	}
	v := s.Current()
	if v != nil && (v.spec == nil || !v.spec.Enabled) {
		v = nil
	}
	for i, t := range found {
		if t.Outcome == "" {
			t.Outcome, t.Reason = events.TickMissed, events.TickReasonSuperseded
			if v != nil && (v.spec.CatchUpPolicy() == catalog.CatchUpAll && v.spec.OverlapPolicy() != catalog.OverlapReplace || i == last && !more) {
				if p.Busy && v.spec.OverlapPolicy() == catalog.OverlapQueue {
					return ticks
				}
				t.Outcome, t.Reason = fire(v.spec, t.To, p)
				if t.Fires() {
					p.Busy, p.Open = true, p.Open+p.Reach
				}
			}
		}
		ticks = extend(ticks, t)
	}
	return ticks
}

// passed lists what is due. Outcome is empty where a tick may be fired; more tells that there are more than it lists.
func passed(s *Schedule, p Present) (ticks []Tick, more bool) {
	seen := 0
	for i := range s.Versions {
		v, until := s.Versions[i], p.Now
		if v.spec == nil || v.spec.RunsOn == catalog.Agent {
			continue
		}
		if !v.Until.IsZero() && v.Until.Before(p.Now) {
			until = v.Until
		}
		for at := range v.spec.Due(later(s.Mark, v.At), until, p.Local) {
			if seen++; seen > tickLimit {
				return ticks, true
			}
			t := Tick{Version: v, From: at, To: at, Count: 1}
			t.Outcome, t.Reason = withheld(v.spec, at, p)
			if t.Outcome == "" {
				ticks = append(ticks, t)
			} else {
				ticks = extend(ticks, t)
			}
		}
	}
	return ticks, false
}

// withheld is how a tick ends that can't be fired; empty when it can.
func withheld(spec *catalog.Schedule, at time.Time, p Present) (events.TickOutcome, string) {
	closed := spec.Closed(at, p.Gates)
	switch {
	case !spec.Enabled:
		return events.TickSkipped, events.TickReasonDisabled
	case p.Freeze.Held(at, p.Local):
		return events.TickSkipped, events.TickReasonFrozen
	case closed != "":
		return events.TickSkipped, closed
	case p.Now.Sub(at) > startable(spec), !started(spec, at).After(p.Now):
		return events.TickMissed, events.TickReasonLate
	default:
		return "", ""
	}
}

// startable is how long after its time a tick may still be fired.
func startable(spec *catalog.Schedule) time.Duration {
	limit := max(spec.CatchUpLimit(), OnTime)
	if spec.CatchUpPolicy() == catalog.CatchUpNone {
		limit = OnTime
	}
	return limit
}

// started is when a tick has to have been started by, by its own starting deadline; far away without one.
func started(spec *catalog.Schedule, nominal time.Time) time.Time {
	if spec.StartingDeadline != nil {
		if d, err := spec.StartingDeadline.Parse(); err == nil {
			return nominal.Add(d)
		}
	}
	return nominal.AddDate(100, 0, 0)
}

// fire is how a tick ends that is to be fired by the version that rules now.
func fire(spec *catalog.Schedule, at time.Time, p Present) (events.TickOutcome, string) {
	late := p.Now.Sub(at) > OnTime
	limit := 0
	if spec.Constraints != nil && spec.Constraints.MaxConcurrent != nil {
		limit = *spec.Constraints.MaxConcurrent
	}
	switch closed := spec.Closed(p.Now, p.Gates); {
	case late && p.Freeze.At(p.Now, p.Local):
		return events.TickMissed, events.TickReasonFrozen
	case late && closed != "":
		return events.TickMissed, closed
	case p.Freeze.At(p.Now, p.Local):
		return events.TickSkipped, events.TickReasonFrozen
	case p.Busy && spec.OverlapPolicy() == catalog.OverlapSkip:
		return events.TickSkipped, events.TickReasonOverlap
	case limit > 0 && p.Open >= limit && spec.OverlapPolicy() != catalog.OverlapReplace:
		return events.TickSkipped, events.TickReasonLimit
	case late:
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

// nextSteps bounds how many ticks that a gate is known to skip are passed over when the next one is looked for.
const nextSteps = 1000

// NextTick is the first tick of a calendar or cron schedule that somebody has to end, and the version that made it. It
// may have passed: a version that has been replaced leaves its ticks to be ended at once, and one that waits for its turn
// (overlap: queue) is due as soon as it comes. False when there is none: the schedule is deleted, an interval, the agents'
// own, or never due again. Ticks of a disabled version, and those that its window or its skip dates hold back, are ended
// together with the next one after them, or when it is replaced.
func NextTick(s *Schedule, local *time.Location) (at time.Time, version uint64, ok bool) {
	for i := range s.Versions {
		v := &s.Versions[i]
		if v.Until.IsZero() && (v.spec == nil || !v.spec.Enabled) {
			continue
		}
		at, ok := v.next(s.Mark, local)
		if !ok {
			continue
		}
		// A named calendar may change, so that a tick that it holds back is ended while it does.
		for range nextSteps {
			if !v.Until.IsZero() || v.spec.Closed(at, catalog.Gates{Local: local}) == "" {
				break
			}
			next, ok := v.next(at, local)
			if !ok {
				break
			}
			at = next
		}
		return at, v.Seq, true
	}
	return time.Time{}, 0, false
}

// Deadline is when commands of a tick may not start any more: at the schedule's next nominal time after the tick, or after
// now where it is fired late, so that an endpoint that returns runs the newest tick and not last week's; or a starting
// deadline after the tick. keep is how long commands are kept where there is no next time.
func Deadline(spec *catalog.Schedule, t Tick, now time.Time, local *time.Location, keep time.Duration) time.Time {
	from := t.To
	if t.Outcome == events.TickCaughtUp {
		from = later(from, now)
	}
	deadline, ok := spec.Next(from, local)
	if every, interval := spec.Every(); interval {
		deadline, ok = from.Add(every), true
	}
	if !ok {
		deadline = from.Add(keep)
	}
	if by := started(spec, t.To); by.Before(deadline) {
		return by
	}
	return deadline
}

// Request is the exec of a tick: the job as it is now, the schedule's plan, and a deadline (Deadline).
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
