package domain

import (
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// CoverState is what a schedule has come to on an endpoint.
type CoverState string

// The states. Ok: it has done what was asked for, until it is due again. Failed: its last run did not succeed. Skipped: it
// left the last run out. Running: a command is out. Pending: it is due again, or its command waits for its return. Never:
// the schedule has not fired on it.
const (
	CoverOK      CoverState = "ok"
	CoverFailed  CoverState = "failed"
	CoverSkipped CoverState = "skipped"
	CoverRunning CoverState = "running"
	CoverPending CoverState = "pending"
	CoverNever   CoverState = "never"
)

// CoverStates lists all states.
func CoverStates() []CoverState {
	return []CoverState{CoverOK, CoverFailed, CoverSkipped, CoverRunning, CoverPending, CoverNever}
}

// Covered is an endpoint of a schedule's target. Reason is a word that says more where there is more to say.
type Covered struct {
	PCID     string
	State    CoverState
	Reason   string
	Progress events.Progress
}

// CoverCadence judges an endpoint by what a schedule of the form per_pc remembers of it, an open run in it. open is that
// run's state; empty: none.
func CoverCadence(s *catalog.Schedule, p events.Progress, open events.TargetState, jobVersion string, now time.Time) Covered {
	c := Covered{PCID: p.PCID, State: CoverNever, Progress: p}
	at, due := s.DueAgain(p, jobVersion)
	switch {
	case open == events.StateWaiting:
		c.State, c.Reason = CoverPending, "waiting"
	case open != "":
		c.State, c.Reason = CoverRunning, string(open)
	case p.Failures > 0:
		c.State = CoverFailed
		if p.NotBefore != nil && p.NotBefore.After(now) {
			c.Reason = "backing_off"
		}
	case p.Succeeded == nil:
	case due && !at.After(now):
		c.State, c.Reason = CoverPending, "due"
	default:
		c.State = CoverOK
	}
	return c
}

// CoverTarget judges an endpoint by what it did in the exec of the schedule's newest nominal time; the zero target: it was not part
// of it.
func CoverTarget(pcID string, t events.Target) Covered {
	c := Covered{PCID: pcID, State: CoverNever, Reason: t.Reason}
	switch {
	case t.State == "":
	case t.State == events.StateSucceeded:
		c.State = CoverOK
	case t.State == events.StateSkipped:
		c.State = CoverSkipped
	case t.State == events.StateWaiting:
		c.State, c.Reason = CoverPending, "waiting"
	case !t.State.Final():
		c.State, c.Reason = CoverRunning, string(t.State)
	default:
		c.State = CoverFailed
		if c.Reason == "" && t.State != events.StateFailed {
			c.Reason = string(t.State)
		}
	}
	return c
}
