package domain

import (
	"maps"
	"slices"
	"time"

	"kanade/libs/events"
)

// Close decides whether an exec has ended: every wave is out and every expected endpoint has answered. Where nobody was
// expected it ends when whoever else is in the plan has answered; where nobody is in it at all, at once. One that was
// stopped closes when those that had their command have answered, with the outcome of the stop.
func Close(x *Exec) (events.ExecClosed, bool) {
	if !x.Planned || x.Closed || x.Totals.Open() > 0 || !x.Stopped && !x.out() {
		return events.ExecClosed{}, false
	}
	if x.Totals.ExpectedCount() == 0 && x.Totals.OthersOpen() > 0 {
		return events.ExecClosed{}, false
	}
	closed := events.ExecClosed{ExecID: x.ID, Outcome: x.Outcome, Totals: x.Totals.Clone()}
	if closed.Outcome == "" {
		closed.Outcome = x.Totals.Outcome()
	}
	if len(x.Targets) == 0 {
		closed.Reason = events.ReasonNoTarget
	}
	return closed, true
}

// correctEvery bounds how often the totals of an exec that has closed are said anew.
const correctEvery = time.Minute

// Correct decides whether the totals of an exec that has closed are said anew: they are no more what the log says, and the
// last time is a minute ago. lookAt is when to ask again, where that is all that is missing; zero otherwise.
func Correct(x *Exec, now time.Time) (corrected events.ExecCorrected, lookAt time.Time, ok bool) {
	if !x.Closed || x.Totals.Equal(x.Said) {
		return events.ExecCorrected{}, time.Time{}, false
	}
	if at := x.SaidAt.Add(correctEvery); at.After(now) {
		return events.ExecCorrected{}, at, false
	}
	return events.ExecCorrected{ExecID: x.ID, Totals: x.Totals.Clone()}, time.Time{}, true
}

// Expire decides the end of an exec whose time is up. It keeps the outcome that it has; otherwise the exec is expired.
func Expire(x *Exec, at time.Time) events.ExecExpired {
	copied := Exec{Targets: maps.Clone(x.Targets), Waves: slices.Clone(x.Waves), Totals: x.Totals.Clone()}
	copied.expire(0, at)
	outcome := x.Outcome
	if outcome == "" {
		outcome = events.OutcomeExpired
	}
	return events.ExecExpired{ExecID: x.ID, Outcome: outcome, Totals: copied.Totals}
}
