package domain

import (
	"time"

	"kanade/libs/events"
)

// Release is a wave, or a part of one, that may go out. To is 0 for the whole.
type Release struct {
	Wave, From, To int
	// Late says that it goes out at a time for which the plan was not made.
	Late bool
}

// Next is what an exec does next.
type Next struct {
	// Halt is set when its failure budget is used up.
	Halt *events.ExecHalted
	// Releases are the waves that may go out now.
	Releases []Release
	// LookAt is when to ask again, though nothing happens until then; zero: a fact will ask.
	LookAt time.Time
}

// Advance decides what an exec does next, by the broker's clock: which waves go out, or that it halts.
//
// A wave goes out when its delay from the submission has passed, or, with After, its delay from the end of the wave
// before; with Pause when an operator advances it, which lets any wave go out at once. While the exec is paused no other does.
// A wave has ended when every expected endpoint of it has answered, or when the longest that a run may take has passed
// since it went out: an endpoint that never answers does not hold the others up.
//
// MaxFailures: more failures than this, of whomever, halt the exec, as long as there is something to call off. MaxParallel: endpoints
// that have their command and have not answered, and those that have failed, are together never more; when so many have
// failed it halts. Endpoints that are away could hold places for days, so theirs are given last, when every expected
// endpoint has answered, and also after the exec has closed. What endpoints reported and the fold does not know yet can
// only make room, so that a fold that is behind keeps within the budget.
func Advance(x *Exec, now time.Time) Next {
	if !x.Planned || x.Stopped {
		return Next{}
	}
	if halt, ok := halt(x); ok {
		return Next{Halt: &halt}
	}
	var n Next
	free := -1 // no budget
	if x.MaxParallel != nil {
		free = max(*x.MaxParallel-inUse(x), 0)
	}
	last := x.answered()
	for i := range x.Waves {
		w := &x.Waves[i]
		upTo := w.Size
		if free >= 0 && !last {
			upTo = w.Expected
		}
		if w.Released > w.Dispatched || w.Released >= upTo || x.Paused && !w.Advanced {
			continue
		}
		due, known := x.due(i)
		if !known {
			continue
		}
		if due.After(now) {
			n.LookAgain(due)
			continue
		}
		r := Release{Wave: i, Late: w.After || w.Pause || w.Advanced || free >= 0}
		if free >= 0 {
			if free == 0 {
				continue
			}
			r.From, r.To = w.Released, w.Released+min(free, upTo-w.Released)
			free -= r.To - r.From
		}
		n.Releases = append(n.Releases, r)
	}
	return n
}

// LookAgain asks for a look at an instant at the latest; zero asks for nothing.
func (n *Next) LookAgain(at time.Time) {
	if !at.IsZero() && (n.LookAt.IsZero() || at.Before(n.LookAt)) {
		n.LookAt = at
	}
}

// due is when a wave goes out; false while that is not known.
func (x *Exec) due(i int) (time.Time, bool) {
	w := &x.Waves[i]
	switch {
	case w.Advanced || w.Released > 0:
		return time.Time{}, true
	case w.Pause:
		return time.Time{}, false
	case !w.After || i == 0:
		return w.DueAt, true
	}
	ended, known := x.ended(i - 1)
	return ended.Add(w.Delay), known
}

// ended is when a wave ends; false while that is not known. One that nobody is expected in ends when it is due.
func (x *Exec) ended(i int) (time.Time, bool) {
	w := &x.Waves[i]
	switch {
	case w.Expected == 0:
		due, known := x.due(i)
		return later(due, w.DueAt), known
	case !w.expectedOut():
		return time.Time{}, false
	case w.Open > 0:
		return w.OutAt.Add(x.Lasts), true
	}
	return later(w.OutAt, w.AnsweredAt), true
}

// expectedOut reports whether every expected endpoint of the wave has its command.
func (w *Wave) expectedOut() bool { return w.Released == w.Dispatched && w.Dispatched >= w.Expected }

// answered reports whether every expected endpoint of every wave has answered.
func (x *Exec) answered() bool {
	for i := range x.Waves {
		if w := &x.Waves[i]; w.Open > 0 || !w.expectedOut() {
			return false
		}
	}
	return true
}

// failures counts the endpoints that ended otherwise than they should. A skip is no failure.
func failures(states map[events.TargetState]int) int {
	return states[events.StateFailed] + states[events.StateTimedOut] + states[events.StateUnknown] + states[events.StateKilled]
}

func halt(x *Exec) (events.ExecHalted, bool) {
	h := events.ExecHalted{ExecID: x.ID, Failed: failures(x.Totals.Expected) + failures(x.Totals.Others), Totals: x.Totals.Clone()}
	if x.MaxFailures != nil && h.Failed > *x.MaxFailures && x.callable() {
		h.Allowed = *x.MaxFailures
		return h, true
	}
	if x.MaxParallel != nil && h.Failed >= *x.MaxParallel && !x.allReleased() {
		h.Allowed = *x.MaxParallel
		return h, true
	}
	return events.ExecHalted{}, false
}

// callable reports whether there is anything to call off: somebody has not said that he has the command.
func (x *Exec) callable() bool {
	for _, state := range []events.TargetState{events.StateExpected, events.StateWaiting, events.StateSent} {
		if x.Totals.Expected[state]+x.Totals.Others[state] > 0 {
			return true
		}
	}
	return false
}

// allReleased reports whether every endpoint may have its command.
func (x *Exec) allReleased() bool {
	for i := range x.Waves {
		if x.Waves[i].Released < x.Waves[i].Size {
			return false
		}
	}
	return true
}

// inUse counts what of MaxParallel is used up: endpoints that may have their command and have not answered, or have
// failed.
func inUse(x *Exec) int {
	n := 0
	for i := range x.Waves {
		w := &x.Waves[i]
		for _, pc := range w.Order[:min(w.Released, len(w.Order))] {
			switch t := x.Targets[pc]; t.State {
			case events.StateSucceeded, events.StateSkipped, events.StateExpired:
			default:
				n++
			}
		}
	}
	return n
}
