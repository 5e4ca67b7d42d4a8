package events

import "time"

// TargetState is the truth about one endpoint in one exec.
type TargetState string

// The states, in the order in which an endpoint passes them. Expected and waiting are the plan's, sent is the
// dispatcher's, the rest are what the endpoint reported, or what the exec's end made of its silence.
const (
	StateExpected  TargetState = "expected"
	StateWaiting   TargetState = "waiting"
	StateSent      TargetState = "sent"
	StateReceived  TargetState = "received"
	StateRunning   TargetState = "running"
	StateSucceeded TargetState = "succeeded"
	StateFailed    TargetState = "failed"
	StateSkipped   TargetState = "skipped"
	StateTimedOut  TargetState = "timed_out"
	StateKilled    TargetState = "killed"
	StateExpired   TargetState = "expired"
	StateUnknown   TargetState = "unknown"
)

// TargetStates lists all states in that order.
func TargetStates() []TargetState {
	return []TargetState{
		StateExpected, StateWaiting, StateSent, StateReceived, StateRunning, StateSucceeded, StateFailed,
		StateSkipped, StateTimedOut, StateKilled, StateExpired, StateUnknown,
	}
}

// rank orders the states of an open target; every final state has the same, highest one.
func (s TargetState) rank() int {
	switch s {
	case StateExpected, StateWaiting:
		return 0
	case StateSent:
		return 1
	case StateReceived:
		return 2
	case StateRunning:
		return 3
	default:
		return 4
	}
}

// Final reports whether the endpoint has nothing more to say: it answered, or its silence was settled.
func (s TargetState) Final() bool { return s != "" && s.rank() == 4 }

// Target is one endpoint in one exec: a fold of facts. The zero value is an endpoint that the plan does not know.
type Target struct {
	State TargetState
	// Expected: the outcome waits for it. Planned: the plan names it. An endpoint that answers without being planned
	// is "unplanned": the same states, counted apart.
	Expected, Planned bool
	Wave              int
	// Code is the exit code of a run that has ended by itself; nil otherwise.
	Code     *int
	Reason   string
	ResultID string
	// At and Sequence are those of the fact that made the state.
	At       time.Time
	Sequence uint64
}

// Apply is the target after one run fact, and whether that changed it. Facts may come twice, late and in another order
// than they happened (an old agent's started event after its result): a state only moves forward, the first answer
// stands, and only what was settled for lack of an answer is corrected by one: expired, unknown, and a plan's skip.
func (t Target) Apply(f RunFact, sequence uint64, at time.Time) (Target, bool) {
	next := f.TargetState()
	switch {
	case !t.State.Final():
		if next.rank() <= t.State.rank() && t.State != "" {
			return t, false
		}
	case t.State == StateExpired, t.State == StateSkipped && t.ResultID == "":
		// Silence, or the plan's guess, is overruled by whatever the endpoint says.
	case t.State == StateUnknown && next.Final() && next != StateUnknown:
		// The agent had lost the run and a true end turned up.
	default:
		return t, false
	}
	t.State, t.ResultID, t.Sequence, t.At = next, f.ResultID, sequence, at
	t.Code, t.Reason = nil, f.Reason
	if next == StateSucceeded || next == StateFailed {
		t.Code = f.Code
	}
	return t, true
}

// Plan makes a target of an endpoint that a plan names, as ExecPlanned.Targets has it, and reports whether that changed it.
// One that spoke before it was planned keeps its state; a second plan changes nothing.
func (t Target) Plan(as Target, sequence uint64, at time.Time) (Target, bool) {
	switch {
	case t.Planned:
		return t, false
	case t.State == "":
		t = as
		t.Sequence, t.At = sequence, at
	}
	t.Planned, t.Expected, t.Wave = true, as.Expected, as.Wave
	return t, true
}

// Expire settles a target whose exec's time is up, and reports whether that changed it. A run that was started and
// never ended is unknown; silence is expired.
func (t Target) Expire(sequence uint64, at time.Time) (Target, bool) {
	if t.State.Final() {
		return t, false
	}
	if t.State == StateRunning {
		t.State = StateUnknown
	} else {
		t.State = StateExpired
	}
	t.Sequence, t.At = sequence, at
	return t, true
}

// Send marks an expected target whose wave's commands are stored. An endpoint that was away stays waiting: its command
// lies there for it.
func (t Target) Send(sequence uint64, at time.Time) (Target, bool) {
	if t.State != StateExpected {
		return t, false
	}
	t.State, t.Sequence, t.At = StateSent, sequence, at
	return t, true
}

// Stop settles a target of an exec that was killed, cancelled or halted and that has not said that it has the command:
// it is not going to run it. Should it say otherwise, that holds (Apply). It reports whether that changed it.
func (t Target) Stop(reason string, sequence uint64, at time.Time) (Target, bool) {
	switch t.State {
	case StateExpected, StateWaiting, StateSent:
		t.State, t.Reason, t.Sequence, t.At = StateSkipped, reason, sequence, at
		return t, true
	}
	return t, false
}
