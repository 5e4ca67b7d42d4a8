package domain

import (
	"cmp"

	"kanade/libs/events"
)

// Exec is an exec as far as an operator's intent asks: a fold of its own facts. The zero value is one that nobody knows.
type Exec struct {
	// Requested is nil for an exec that nobody knows; Sequence is that of the request.
	Requested *events.ExecRequested
	Sequence  uint64
	// Last is the last sequence of the aggregate: what an append expects.
	Last uint64

	killed, cancelled, halted, closed, expired, reduced uint64
	paused                                              bool
	// pause is the sequence of the newest pause or resume.
	pause uint64
	// waves hold the sequence of the fact that lets each wave go out, the first release or an operator's; nil before the plan.
	waves []uint64
}

// Apply takes in the next fact of the exec.
func (x *Exec) Apply(p events.Payload, seq uint64) {
	x.Last = seq
	first := func(at *uint64) { *at = cmp.Or(*at, seq) }
	switch p := p.(type) {
	case events.ExecRequested:
		if x.Requested == nil {
			x.Requested, x.Sequence = &p, seq
		}
	case events.ExecPlanned:
		if x.waves == nil {
			x.waves = make([]uint64, len(p.Waves))
		}
	case events.WaveReleased:
		x.out(p.Wave, seq)
	case events.WaveAdvanced:
		x.out(p.Wave, seq)
	case events.ExecPaused:
		x.paused, x.pause = true, seq
	case events.ExecResumed:
		x.paused, x.pause = false, seq
	case events.ExecKilled:
		first(&x.killed)
	case events.ExecCancelled:
		first(&x.cancelled)
	case events.ExecHalted:
		first(&x.halted)
	case events.ExecClosed:
		first(&x.closed)
	case events.ExecExpired:
		first(&x.expired)
	case events.ExecReduced:
		first(&x.reduced)
	}
}

func (x *Exec) out(wave int, seq uint64) {
	if 0 <= wave && wave < len(x.waves) {
		x.waves[wave] = cmp.Or(x.waves[wave], seq)
	}
}

// Intent is what an operator's intent comes to: a fact to append, or nil, and then Sequence is that of the fact that has
// made it so already.
type Intent struct {
	Fact     events.Payload
	Sequence uint64
}

// KillExec stops an exec and what runs of it. It may follow any end but the expiry: endpoints that were away, and runs
// that a cancel or a halt let go on, are reached by it.
func KillExec(x Exec, id, reason string) (Intent, error) {
	if err := x.Known(id); err != nil {
		return Intent{}, err
	}
	switch {
	case x.killed > 0:
		return Intent{Sequence: x.killed}, nil
	case x.expired > 0:
		return Intent{}, Refuse(Conflict, "execution '%s' has expired: nothing of it can start any more, and nothing of it is followed any more", id)
	}
	return Intent{Fact: events.ExecKilled{ExecID: id, Reason: reason}}, nil
}

// CancelExec stops an exec and lets go on what runs of it.
func CancelExec(x Exec, id, reason string) (Intent, error) {
	if err := x.Known(id); err != nil {
		return Intent{}, err
	}
	switch {
	case x.cancelled > 0 && x.expired == 0:
		return Intent{Sequence: x.cancelled}, nil
	case x.ended() != "":
		return Intent{}, Refuse(Conflict, "execution '%s' %s: there is nothing to cancel", id, x.ended())
	}
	return Intent{Fact: events.ExecCancelled{ExecID: id, Reason: reason}}, nil
}

// PauseExec holds back every wave that has not gone out.
func PauseExec(x Exec, id, reason string) (Intent, error) {
	if err := x.Known(id); err != nil {
		return Intent{}, err
	}
	switch {
	case x.ended() != "":
		return Intent{}, Refuse(Conflict, "execution '%s' %s: there is nothing to pause", id, x.ended())
	case x.paused:
		return Intent{Sequence: x.pause}, nil
	}
	return Intent{Fact: events.ExecPaused{ExecID: id, Reason: reason}}, nil
}

// ResumeExec ends a pause. One that is not paused stays as it is, which its last resumption said, or its request.
func ResumeExec(x Exec, id, reason string) (Intent, error) {
	if err := x.Known(id); err != nil {
		return Intent{}, err
	}
	switch {
	case x.ended() != "":
		return Intent{}, Refuse(Conflict, "execution '%s' %s: there is nothing to resume", id, x.ended())
	case !x.paused:
		return Intent{Sequence: cmp.Or(x.pause, x.Sequence)}, nil
	}
	return Intent{Fact: events.ExecResumed{ExecID: id, Reason: reason}}, nil
}

// AdvanceExec lets a wave go out now: the named one, or with nil the first that has not gone out.
func AdvanceExec(x Exec, id string, wave *int, reason string) (Intent, error) {
	if err := x.Known(id); err != nil {
		return Intent{}, err
	}
	switch {
	case x.ended() != "":
		return Intent{}, Refuse(Conflict, "execution '%s' %s: no wave of it goes out any more", id, x.ended())
	case x.waves == nil:
		return Intent{}, Refuse(Conflict, "execution '%s' has not been planned yet: which waves it has is known in a moment", id)
	case wave == nil:
		for i, out := range x.waves {
			if out == 0 {
				return Intent{Fact: events.WaveAdvanced{ExecID: id, Wave: i, Reason: reason}}, nil
			}
		}
		return Intent{}, Refuse(Conflict, "all %d waves of execution '%s' have gone out", len(x.waves), id)
	case *wave < 0 || *wave >= len(x.waves):
		return Intent{}, RefuseField(Unprocessable, "wave", "%d is none of the %d waves of execution '%s', which are counted from 0", *wave, len(x.waves), id)
	case x.waves[*wave] > 0:
		return Intent{Sequence: x.waves[*wave]}, nil
	}
	return Intent{Fact: events.WaveAdvanced{ExecID: id, Wave: *wave, Reason: reason}}, nil
}

// ended says how it has ended, as the rest of a sentence; empty while it goes on.
func (x *Exec) ended() string {
	switch {
	case x.expired > 0:
		return "has expired"
	case x.killed > 0:
		return "was killed"
	case x.cancelled > 0:
		return "was cancelled"
	case x.halted > 0:
		return "was halted by its failure budget"
	case x.closed > 0:
		return "has ended"
	}
	return ""
}

// Known refuses an exec that nobody knows, and one of which the log knows no more than what it was.
func (x *Exec) Known(id string) error {
	switch {
	case x.reduced > 0:
		return Forgotten(id)
	case x.Requested == nil:
		return NoExec(id)
	}
	return nil
}

// Forgotten refuses an exec that is older than the history.
func Forgotten(id string) error {
	return Refuse(Conflict, "execution '%s' has ended and is older than the history: only what it amounted to is known any more", id)
}

// NoExec refuses an exec that nobody knows.
func NoExec(id string) error { return Refuse(NotFound, "execution '%s' not found", id) }
