package events

import "time"

// ExecSummary is what an exec amounts to, without its endpoints: who asked for what, how many it addresses, how it ended.
// It is a fold of the facts of the exec's aggregate; the read model shows it, and ExecReduced bears it when those facts go.
// The times are those of the envelopes. The zero value is an exec of which nothing is known.
type ExecSummary struct {
	JobID   string `json:"job_id"`
	Version string `json:"version"`
	// JobSequence and JobHash name the document that ran.
	JobSequence uint64 `json:"job_sequence"`
	JobHash     string `json:"job_hash"`
	// Actor asked for it; Origin is what the client called itself; ScheduleID and Nominal name the tick, empty and zero
	// for an exec that a person asked for.
	Actor      Actor     `json:"actor"`
	Origin     string    `json:"origin,omitempty"`
	ScheduleID string    `json:"schedule_id,omitempty"`
	Nominal    time.Time `json:"nominal,omitzero"`
	// RetryOf is the exec whose endpoints this one tries again; empty otherwise.
	RetryOf string `json:"retry_of,omitempty"`
	// InitiatedAt is the time of the request and Sequence its LOG sequence.
	InitiatedAt time.Time `json:"initiated_at"`
	Sequence    uint64    `json:"sequence"`
	// TargetCount is how many endpoints the plan addresses, those that were away included, those it leaves out not; 0
	// before the plan.
	TargetCount int `json:"target_count"`
	// Waves is how many waves the plan has; 0 before the plan.
	Waves int `json:"waves"`
	// PlannedAt, ClosedAt and ExpiredAt are zero before; ExpiresAt is the plan's, or what the release of a wave moved it to.
	PlannedAt time.Time `json:"planned_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	ClosedAt  time.Time `json:"closed_at,omitzero"`
	ExpiredAt time.Time `json:"expired_at,omitzero"`
	// EndedSequence is the LOG sequence of the first fact that closed it or let it expire; 0 before. What an endpoint says
	// after that is late. A stop is no end: what runs goes on.
	EndedSequence uint64 `json:"ended_sequence,omitempty"`
	// Outcome is empty while it is undecided; Reason says more where the outcome alone does not. It is the first of killed,
	// cancelled, halted, closed and expired.
	Outcome Outcome `json:"outcome,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	// Stop is how it was stopped; its By is empty where it was not.
	Stop ExecStop `json:"stop,omitzero"`
}

// ExecStop is the halt, cancellation or kill of an exec. Of several the first one counts, but a kill counts before the
// others: it reaches what they let go on.
type ExecStop struct {
	// By is killed, cancelled or halted.
	By     Outcome `json:"by"`
	Actor  Actor   `json:"actor"`
	Reason string  `json:"reason,omitempty"`
	// At is by the broker's clock, Sequence the LOG sequence.
	At       time.Time `json:"at"`
	Sequence uint64    `json:"sequence"`
}

// Apply takes a fact of the exec in, e its envelope. Of facts of one kind the first counts, so that it may be told again.
func (s *ExecSummary) Apply(p Payload, e *Event, sequence uint64) {
	switch p := p.(type) {
	case ExecRequested:
		s.request(p, e, sequence)
	case ExecPlanned:
		s.plan(p, e)
	case WaveReleased:
		if p.ExpiresAt != nil && p.ExpiresAt.After(s.ExpiresAt) {
			s.ExpiresAt = p.ExpiresAt.UTC()
		}
	case ExecHalted:
		s.stop(ExecStop{By: OutcomeHalted, Actor: e.Actor, At: e.Time, Sequence: sequence})
	case ExecCancelled:
		s.stop(ExecStop{By: OutcomeCancelled, Actor: e.Actor, Reason: p.Reason, At: e.Time, Sequence: sequence})
	case ExecKilled:
		s.stop(ExecStop{By: OutcomeKilled, Actor: e.Actor, Reason: p.Reason, At: e.Time, Sequence: sequence})
	case ExecClosed:
		s.end(&s.ClosedAt, p.Outcome, p.Reason, e, sequence)
	case ExecExpired:
		s.end(&s.ExpiredAt, p.Outcome, "", e, sequence)
	case ExecReduced:
		*s = p.ExecSummary
	}
}

func (s *ExecSummary) request(p ExecRequested, e *Event, sequence uint64) {
	if s.Sequence != 0 {
		return
	}
	s.JobID, s.Version, s.JobSequence, s.JobHash = p.JobID, p.Version, p.JobSequence, p.JobHash
	s.Actor, s.Origin, s.ScheduleID, s.RetryOf = e.Actor, p.Origin, p.ScheduleID, p.RetryOf
	if p.Nominal != nil {
		s.Nominal = p.Nominal.UTC()
	}
	s.InitiatedAt, s.Sequence = e.Time, sequence
}

func (s *ExecSummary) plan(p ExecPlanned, e *Event) {
	if !s.PlannedAt.IsZero() {
		return
	}
	s.PlannedAt, s.ExpiresAt, s.Waves = e.Time, p.ExpiresAt.UTC(), len(p.Waves)
	for _, w := range p.Waves {
		s.TargetCount += w.Size()
	}
}

func (s *ExecSummary) stop(stop ExecStop) {
	s.decide(stop.By, "")
	if s.Stop.By == "" || stop.By == OutcomeKilled && s.Stop.By != stop.By {
		s.Stop = stop
	}
}

// end notes the first end of its kind.
func (s *ExecSummary) end(at *time.Time, o Outcome, reason string, e *Event, sequence uint64) {
	if !at.IsZero() {
		return
	}
	*at = e.Time
	if s.EndedSequence == 0 {
		s.EndedSequence = sequence
	}
	s.decide(o, reason)
}

// decide keeps the first outcome that the log holds.
func (s *ExecSummary) decide(o Outcome, reason string) {
	if s.Outcome == "" {
		s.Outcome, s.Reason = o, reason
	}
}

// ExecReduced is the last fact of an exec that has ended and is older than Limits.History: what there is to know of it when
// its other facts, and what endpoints said of it, have left the log.
type ExecReduced struct {
	ExecID string `json:"exec_id"`
	ExecSummary
	// Totals are the last ones, late answers included.
	Totals Totals `json:"totals"`
}

func (ExecReduced) EventType() string     { return "kanade.exec.reduced.v1" }
func (p ExecReduced) AggregateID() string { return p.ExecID }

var sampleExecReduced = ExecReduced{
	ExecID: sampleExecRequested.ExecID,
	ExecSummary: ExecSummary{
		JobID: "hello", Version: "1.0.0", JobSequence: 7, JobHash: sampleDocument.Hash, Actor: "user:op", Origin: "cli",
		ScheduleID: "nightly", Nominal: sampleTime, RetryOf: sampleExecRequested.RetryOf, InitiatedAt: sampleTime, Sequence: 8,
		TargetCount: 3, Waves: 1, PlannedAt: sampleTime, ExpiresAt: sampleTime, ClosedAt: sampleTime, ExpiredAt: sampleTime, EndedSequence: 20,
		Outcome: OutcomeKilled, Reason: ReasonNoTarget,
		Stop: ExecStop{By: OutcomeKilled, Actor: "user:op", Reason: "fills the disk", At: sampleTime, Sequence: 15},
	},
	Totals: sampleTotals,
}
