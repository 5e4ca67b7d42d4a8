package domain

import (
	"fmt"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// SchedulePlan is the plan of an exec that an operator asks for in a schedule's place: that of its ticks without their
// deadline, for it is no tick that a next one follows. pcs narrow it to some endpoints, in one wave; none: nothing is
// narrowed.
func SchedulePlan(s *catalog.Schedule, pcs []string) *catalog.Plan {
	plan := s.Plan
	plan.DeadlineAt, plan.Retry = nil, s.RetryPolicy()
	if len(pcs) > 0 {
		plan.Target, plan.Rollout = catalog.Target{PCs: unique(pcs)}, nil
	}
	return &plan
}

// CheckNarrowed refuses endpoints that are not of the schedule's target, of which members are all by id.
func CheckNarrowed(pcs, members []string) error {
	in := make(map[string]bool, len(members))
	for _, id := range members {
		in[id] = true
	}
	for i, id := range pcs {
		if !in[id] {
			return RefuseField(Unprocessable, fmt.Sprintf("pcs[%d]", i), "'%s' is not in the target of the schedule", id)
		}
	}
	return nil
}

// MaxBackfill is how many execs one backfill makes.
const MaxBackfill = 100

// Backfilled is what a backfill does with one nominal time.
type Backfilled struct {
	Nominal time.Time
	// ExecID is that of the tick, whoever makes it, and however often.
	ExecID string
	// Known: there is an exec of it already. Held is the reason for which it is left out; empty: none.
	Known bool
	Held  string
}

// Asks reports whether it is to be run.
func (b Backfilled) Asks() bool { return !b.Known && b.Held == "" }

// CheckBackfill refuses a backfill that can't be carried out at all.
func CheckBackfill(s *catalog.Schedule, from, to, now time.Time) error {
	switch {
	case s.Cadence() != nil:
		return Refuse(Unprocessable, "schedule '%s' counts from what its endpoints do (%s): it has no nominal times to make up for; run it now instead",
			s.ID, s.WhenText())
	case from.IsZero():
		return RefuseField(Invalid, "from", "is missing")
	case to.IsZero():
		return RefuseField(Invalid, "to", "is missing")
	case !from.Before(to):
		return RefuseField(Invalid, "to", "must be later than from")
	case to.After(now):
		return RefuseField(Unprocessable, "to", "%s has not come yet: what is due later the schedule fires itself", to.UTC().Format(time.RFC3339))
	}
	return nil
}

// Backfill decides what becomes of the nominal times of a schedule, oldest first. known are the execs that there are. A
// schedule that is disabled is no reason to leave a tick out: the operator asks.
func Backfill(s *catalog.Schedule, list []Forecast, known map[string]bool, ignoreGates bool) ([]Backfilled, error) {
	rows, asked := make([]Backfilled, len(list)), 0
	for i, f := range list {
		rows[i] = Backfilled{Nominal: f.At, ExecID: events.FireID(s.ID, f.At), Held: f.Reason}
		rows[i].Known = known[rows[i].ExecID]
		if ignoreGates {
			rows[i].Held = ""
		}
		if rows[i].Asks() {
			asked++
		}
	}
	if asked > MaxBackfill {
		return nil, Refuse(Unprocessable, "%d ticks would be made up for, more than the limit of %d at once: take a shorter span", asked, MaxBackfill)
	}
	return rows, nil
}
