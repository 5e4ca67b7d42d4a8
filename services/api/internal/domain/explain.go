package domain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"kanade/libs/events"
)

// Case is one endpoint in one exec, and what is known of it.
type Case struct {
	ExecID, PCID string
	// Facts are those of the exec's own aggregate, in the order of the log; none where the log holds them no more.
	Facts []ExecFact
	// Target is the endpoint's row, zero where it has none. It may be behind the facts, which are then laid over it.
	Target events.Target
	// Run is what the endpoint reported; nil before its script began or was skipped.
	Run *RunReport
	// Presence is what is known of the endpoint itself; nil: nobody asked.
	Presence *Presence
	// Now is the broker's time.
	Now time.Time
}

// Reduced reports whether the exec is older than the history: there is nothing to explain it by.
func (c *Case) Reduced() bool {
	return slices.ContainsFunc(c.Facts, func(f ExecFact) bool { _, is := f.Payload.(events.ExecReduced); return is })
}

// Presence is when an endpoint was last heard, by the broker's clock (zero: never), and whether it is there by that, and
// the groups it is in.
type Presence struct {
	HeardAt time.Time
	Alive   bool
	Groups  []string
}

// ExecFact is one fact of an exec with its envelope. At is by the broker's clock.
type ExecFact struct {
	Seq     uint64
	At      time.Time
	Actor   events.Actor
	Payload events.Payload
}

// RunReport is one run as its endpoint reported it.
type RunReport struct {
	// StartedAt and FinishedAt are by the endpoint's clock; FinishedAt is zero while it runs.
	StartedAt, FinishedAt time.Time
	// Detail says in words why it did not run.
	Detail string
	// Seq and At are the LOG sequence and the broker's time of the fact that ended it, of its start while it runs.
	Seq uint64
	At  time.Time
}

// Explanation says why an endpoint did, did not, or did not yet run. Target is its row with all facts laid over it, zero
// for an endpoint that is no target. Reason is for machines: the target's own, or one of the Why… words; empty for a run
// that ended by itself.
type Explanation struct {
	Target          events.Target
	Reason, Summary string
	Steps           []Step
}

// Step is one fact that matters to the endpoint. Fact is its type without "kanade.".
type Step struct {
	Sequence   uint64
	At         time.Time
	Fact, Text string
}

// Reasons of what no fact gives a reason for.
const (
	// Nobody decided that it runs.
	WhyNotKnown   = "not_in_log"
	WhyNotPlanned = "not_planned"
	WhyNotInPlan  = "not_in_plan"
	// Its wave, or its part of the wave, has not gone out.
	WhyTime       = "waits_for_time"
	WhyBefore     = "waits_for_wave_before"
	WhyRelease    = "waits_for_release"
	WhyPaused     = "exec_paused"
	WhyBudget     = "waits_for_budget"
	WhyLast       = "waits_for_expected"
	WhyDispatcher = "waits_for_dispatch"
	WhyDispatched = "in_dispatch"
	// Its command is out.
	WhyAway     = "away"
	WhySilent   = "not_heard"
	WhyQueued   = "queued"
	WhyRunning  = "running"
	WhyStopping = "stop_not_confirmed"
	WhyNotBegun = "not_begun"
	WhyNoEnd    = "end_not_reported"
)

// Explain tells the story of the endpoint. It looks at the plan once and lists nobody, so that its cost is that of
// reading the facts.
func Explain(c Case) Explanation {
	s := &story{Case: c, wave: -1}
	for _, f := range c.Facts {
		s.take(f)
	}
	s.tellRun()
	slices.SortStableFunc(s.steps, func(a, b Step) int { return cmp.Compare(a.Sequence, b.Sequence) })
	reason, summary := s.judge()
	if s.Target.Reason != "" {
		reason = s.Target.Reason
	}
	return Explanation{s.Target, reason, strings.Join(append([]string{summary}, s.remarks()...), " "), s.steps}
}

// Late reports whether the target is in its state because the endpoint spoke after the exec's end. endedSequence is the
// LOG sequence of that end; 0: it has not ended.
func Late(t events.Target, endedSequence uint64) bool {
	return t.ResultID != "" && !settled(t) && endedSequence != 0 && t.Sequence > endedSequence
}

// settled reports whether the expiry made the state, for lack of an answer. An endpoint that says itself that it does not
// know the end of its run gives a reason.
func settled(t events.Target) bool {
	return t.State == events.StateExpired || t.State == events.StateUnknown && t.Reason == ""
}

// story is the fold of an exec's facts from the point of view of one endpoint.
type story struct {
	Case
	steps   []Step
	request *events.ExecRequested
	// plan and when it was made; wave and place are where the endpoint stands in it, wave is -1 where it is in none.
	plan        *events.ExecPlanned
	plannedAt   time.Time
	wave, place int
	// upTo is how many places of its wave are out; released and dispatched are its own part's.
	upTo                         int
	released, dispatched         *ExecFact
	advanced, paused             *ExecFact
	halted, cancelled, killed    *ExecFact
	closed, expired              *ExecFact
	deadlineAt, expiresAt, ended time.Time
	endSeq                       uint64
}

// take folds one fact: what it says of the exec, what it does to the target, and its sentence if it matters to it.
func (s *story) take(f ExecFact) {
	switch p := f.Payload.(type) {
	case events.ExecRequested:
		s.request = &p
		s.tell(f, s.sayRequest(f, p))
	case events.ExecPlanned:
		s.takePlan(f, p)
	case events.WaveAdvanced:
		if s.mine(p.Wave) {
			first(&s.advanced, f)
			s.tell(f, fmt.Sprintf("%s let %s go out at once%s.", f.Actor, s.waveName(p.Wave), because(p.Reason)))
		}
	case events.WaveReleased:
		s.takeRelease(f, p)
	case events.WaveDispatched:
		if s.mine(p.Wave) && s.within(p.From, p.To) {
			first(&s.dispatched, f)
			s.tell(f, "The commands of "+s.part(p.Wave, p.From, p.To)+" are stored: the endpoint gets its own as soon as it is connected.")
			s.later(f, events.Target.Send)
		}
	case events.ExecPaused:
		s.paused = &f
		s.tell(f, fmt.Sprintf("%s paused the exec%s: no further wave goes out.", f.Actor, because(p.Reason)))
	case events.ExecResumed:
		s.paused = nil
		s.tell(f, fmt.Sprintf("%s resumed the exec%s.", f.Actor, because(p.Reason)))
	case events.ExecHalted:
		s.stop(f, &s.halted, events.SkipReasonHalted, s.sayHalt(&f))
	case events.ExecCancelled:
		s.stop(f, &s.cancelled, events.SkipReasonCancelled, s.sayCancel(&f))
	case events.ExecKilled:
		s.stop(f, &s.killed, events.SkipReasonKilled, s.sayKill(&f))
	case events.ExecClosed:
		s.end(f, &s.closed)
		s.tell(f, fmt.Sprintf("Nobody is waited for any more: the exec has ended as %s%s.", p.Outcome, because(p.Reason)))
	case events.ExecExpired:
		s.end(f, &s.expired)
		s.tell(f, "The time of the exec was up: nobody who is still silent is waited for any more.")
		s.later(f, events.Target.Expire)
	}
}

func first(kept **ExecFact, f ExecFact) {
	if *kept == nil {
		*kept = &f
	}
}

func (s *story) tell(f ExecFact, text string) {
	s.steps = append(s.steps, Step{f.Seq, f.At, strings.TrimPrefix(f.Payload.EventType(), "kanade."), text})
}

// later changes the target by a fact that its row does not know yet.
func (s *story) later(f ExecFact, change func(events.Target, uint64, time.Time) (events.Target, bool)) {
	if f.Seq > s.Target.Sequence {
		s.Target, _ = change(s.Target, f.Seq, f.At)
	}
}

func (s *story) stop(f ExecFact, kept **ExecFact, reason, text string) {
	first(kept, f)
	s.tell(f, text)
	s.later(f, func(t events.Target, seq uint64, at time.Time) (events.Target, bool) { return t.Stop(reason, seq, at) })
}

func (s *story) end(f ExecFact, kept **ExecFact) {
	first(kept, f)
	if s.endSeq == 0 {
		s.endSeq, s.ended = f.Seq, f.At
	}
}

func (s *story) takePlan(f ExecFact, p events.ExecPlanned) {
	if s.plan != nil {
		return
	}
	s.plan, s.plannedAt, s.deadlineAt, s.expiresAt = &p, f.At, p.DeadlineAt, p.ExpiresAt
	planned := events.Target{Planned: true, Sequence: f.Seq, At: f.At}
	for i, w := range p.Waves {
		if at := slices.Index(w.Expected, s.PCID); at >= 0 {
			s.wave, s.place = i, at
			planned.State, planned.Expected, planned.Wave = events.StateExpected, true, i
			break
		}
		if at := slices.Index(w.Waiting, s.PCID); at >= 0 {
			s.wave, s.place = i, len(w.Expected)+at
			planned.State, planned.Wave = events.StateWaiting, i
			break
		}
	}
	if s.wave < 0 {
		if at := slices.IndexFunc(p.Skipped, func(x events.SkippedPC) bool { return x.PCID == s.PCID }); at >= 0 {
			planned.State, planned.Reason = events.StateSkipped, p.Skipped[at].Reason
		}
	}
	s.tell(f, s.sayPlan(planned))
	switch t := &s.Target; {
	case planned.State == "":
	case t.State == "":
		s.Target = planned
	case !t.Planned:
		t.Planned, t.Expected, t.Wave = true, planned.Expected, planned.Wave
	}
}

func (s *story) takeRelease(f ExecFact, p events.WaveReleased) {
	if p.ExpiresAt != nil && p.ExpiresAt.After(s.expiresAt) {
		s.expiresAt = *p.ExpiresAt
	}
	if !s.mine(p.Wave) {
		return
	}
	s.upTo = max(s.upTo, p.To)
	if !s.within(p.From, p.To) {
		return
	}
	first(&s.released, f)
	if p.DeadlineAt != nil {
		s.deadlineAt = *p.DeadlineAt
	}
	s.tell(f, "Release of "+s.part(p.Wave, p.From, p.To)+": its commands may go out.")
}

// mine reports whether the endpoint is in the wave.
func (s *story) mine(wave int) bool { return s.plan != nil && s.wave >= 0 && s.wave == wave }

// within reports whether the part of its wave holds the endpoint.
func (s *story) within(from, to int) bool {
	return from == 0 && to == 0 || s.place >= from && s.place < to
}
