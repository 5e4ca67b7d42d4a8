package domain

import (
	"time"

	"kanade/libs/events"
)

// Exec is one exec that has not expired: the fold of its own facts and of what endpoints say of it.
type Exec struct {
	ID         string    `json:"id"`
	ScheduleID string    `json:"schedule_id,omitempty"`
	Nominal    time.Time `json:"nominal,omitzero"`
	// LastSeq is the last sequence of the exec's aggregate: what an append expects.
	LastSeq uint64 `json:"last_seq"`
	// TraceParent is the W3C trace context of the aggregate's last fact, in which the next one goes on; empty without.
	TraceParent string `json:"traceparent,omitempty"`
	Planned     bool   `json:"planned,omitempty"`
	// Waves is how many the plan has, Dispatched how many of them are out.
	Waves      int                      `json:"waves"`
	Dispatched int                      `json:"dispatched"`
	Targets    map[string]events.Target `json:"targets,omitempty"`
	Totals     events.Totals            `json:"totals"`
	// Outcome is set when the exec has ended.
	Outcome   events.Outcome `json:"outcome,omitempty"`
	ExpiresAt time.Time      `json:"expires_at,omitzero"`
}

// Ended reports whether the outcome is decided.
func (x *Exec) Ended() bool { return x.Outcome != "" }

// Busy reports whether a script of it runs, or is about to, on some endpoint: what the overlap of ticks asks for.
func (x *Exec) Busy() bool {
	for _, state := range []events.TargetState{events.StateReceived, events.StateRunning} {
		if x.Totals.Expected[state]+x.Totals.Others[state] > 0 {
			return true
		}
	}
	return false
}

// set puts a target into its new state and keeps the totals equal to the targets.
func (x *Exec) set(pc string, t events.Target) {
	if old, ok := x.Targets[pc]; ok {
		x.Totals.Remove(old)
	}
	if x.Targets == nil {
		x.Targets = map[string]events.Target{}
	}
	x.Targets[pc] = t
	x.Totals.Add(t)
}

func (x *Exec) plan(p events.ExecPlanned, seq uint64, at time.Time) {
	x.Planned, x.Waves, x.ExpiresAt = true, len(p.Waves), p.ExpiresAt
	for i, w := range p.Waves {
		for _, pc := range w.Expected {
			x.set(pc, events.Target{State: events.StateExpected, Expected: true, Planned: true, Wave: i, At: at, Sequence: seq})
		}
		for _, pc := range w.Waiting {
			x.set(pc, events.Target{State: events.StateWaiting, Planned: true, Wave: i, At: at, Sequence: seq})
		}
	}
	for _, s := range p.Skipped {
		x.set(s.PCID, events.Target{State: events.StateSkipped, Planned: true, Reason: s.Reason, At: at, Sequence: seq})
	}
}

func (x *Exec) dispatched(wave int, seq uint64, at time.Time) {
	x.Dispatched++
	for pc, t := range x.Targets {
		if t.Wave == wave {
			if next, changed := t.Send(seq, at); changed {
				x.set(pc, next)
			}
		}
	}
}

// run applies what an endpoint says; the answer is the target when that changed it. An endpoint outside the plan becomes
// an unplanned target, counted apart.
func (x *Exec) run(f events.RunFact, seq uint64, at time.Time) (events.Target, bool) {
	if !x.Planned || x.settled() {
		return events.Target{}, false
	}
	next, changed := x.Targets[f.PCID].Apply(f, seq, at)
	if changed {
		x.set(f.PCID, next)
	}
	return next, changed
}

// expire settles every open target and gives the ids of those it settled.
func (x *Exec) expire(seq uint64, at time.Time) []string {
	var settled []string
	for pc, t := range x.Targets {
		if next, changed := t.Expire(seq, at); changed {
			x.set(pc, next)
			settled = append(settled, pc)
		}
	}
	return settled
}

// shrink forgets the endpoints of an exec that has ended and that nobody is away from: what remains is its totals.
func (x *Exec) shrink() {
	if x.settled() {
		x.Targets = nil
	}
}

// settled reports whether it has ended and nobody has anything more to say that counts.
func (x *Exec) settled() bool {
	return x.Ended() && x.Totals.Open() == 0 && x.Totals.OthersOpen() == 0
}
