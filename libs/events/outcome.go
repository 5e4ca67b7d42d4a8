package events

import "maps"

// Outcome is what an exec amounts to. It is the first of killed, cancelled, halted, closed and expired that the log
// holds.
type Outcome string

// The outcomes. Succeeded: every expected endpoint did. Failed: none did. Partial: some did.
const (
	OutcomeSucceeded Outcome = "succeeded"
	OutcomePartial   Outcome = "partial"
	OutcomeFailed    Outcome = "failed"
	OutcomeHalted    Outcome = "halted"
	OutcomeCancelled Outcome = "cancelled"
	OutcomeKilled    Outcome = "killed"
	OutcomeExpired   Outcome = "expired"
)

// Totals counts targets by state. It is derived from the targets and never counted up.
type Totals struct {
	// Expected counts the endpoints that the outcome waits for.
	Expected map[TargetState]int `json:"expected"`
	// Others counts those that it does not wait for: away when it was planned, left out by the plan, unplanned.
	Others map[TargetState]int `json:"others,omitempty"`
}

// Add counts one target.
func (t *Totals) Add(x Target) { t.add(x, 1) }

// Remove takes one target out: with Add it is the transition of a target from one state to the next.
func (t *Totals) Remove(x Target) { t.add(x, -1) }

func (t *Totals) add(x Target, n int) {
	into := &t.Others
	if x.Expected {
		into = &t.Expected
	}
	if *into == nil {
		*into = map[TargetState]int{}
	}
	if (*into)[x.State] += n; (*into)[x.State] == 0 {
		delete(*into, x.State)
	}
}

// Clone shares nothing with t.
func (t Totals) Clone() Totals {
	return Totals{Expected: maps.Clone(t.Expected), Others: maps.Clone(t.Others)}
}

// Equal reports whether both count the same.
func (t Totals) Equal(o Totals) bool {
	return maps.Equal(t.Expected, o.Expected) && maps.Equal(t.Others, o.Others)
}

// ExpectedCount is how many endpoints the outcome waits for.
func (t Totals) ExpectedCount() int { return sum(t.Expected) }

// Open is how many expected endpoints have not answered.
func (t Totals) Open() int { return open(t.Expected) }

// OthersOpen is how many of the others have not answered.
func (t Totals) OthersOpen() int { return open(t.Others) }

// Outcome of an exec whose expected endpoints have all answered, or, when nobody was expected, of whoever else
// answered. Nobody at all is failed: the exec did nothing.
func (t Totals) Outcome() Outcome {
	counted := t.Expected
	if sum(counted) == 0 {
		counted = t.Others
	}
	switch n := counted[StateSucceeded]; {
	case n == 0:
		return OutcomeFailed
	case n == sum(counted):
		return OutcomeSucceeded
	default:
		return OutcomePartial
	}
}

// TotalsOf are the totals that a fact of an exec says; false for a fact that says none.
func TotalsOf(p Payload) (Totals, bool) {
	switch p := p.(type) {
	case ExecHalted:
		return p.Totals, true
	case ExecClosed:
		return p.Totals, true
	case ExecCorrected:
		return p.Totals, true
	case ExecExpired:
		return p.Totals, true
	case ExecReduced:
		return p.Totals, true
	}
	return Totals{}, false
}

func sum(m map[TargetState]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

func open(m map[TargetState]int) int {
	n := 0
	for state, v := range m {
		if !state.Final() {
			n += v
		}
	}
	return n
}

var sampleTotals = Totals{
	Expected: map[TargetState]int{StateSucceeded: 1, StateFailed: 1},
	Others:   map[TargetState]int{StateWaiting: 1, StateSkipped: 1},
}
