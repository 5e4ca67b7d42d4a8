package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
)

// chronicle is a fold of the log that shares nothing with the scheduler's, for checks of long histories.
type chronicle struct {
	seq   uint64                 // what it has read
	ticks map[string][]ledgerRow // by schedule, in the log's order
	execs map[string]*chronicled
}

type ledgerRow struct {
	events.ScheduleTicked
	at time.Time // when the log had it
}

// chronicled is one exec: how often it was asked for and planned, and when and how it ended on each endpoint.
type chronicled struct {
	requested, planned int
	plan               catalog.Plan
	ends               map[string]runEnd
	closed, expired    time.Time
	anybody            bool // it closed, and somebody had succeeded
}

type runEnd struct {
	at        time.Time
	succeeded bool
}

func newChronicle() *chronicle {
	return &chronicle{ticks: map[string][]ledgerRow{}, execs: map[string]*chronicled{}}
}

// chronicle reads the whole log.
func (w *world) chronicle() *chronicle {
	w.t.Helper()
	c := newChronicle()
	require.NoError(w.t, c.read(w.t.Context(), bustest.Dial(w.t, w.broker)))
	return c
}

// read goes on to where the log ends now.
func (c *chronicle) read(ctx context.Context, b *bus.Bus) error {
	last, _, err := b.LastRaw(ctx, events.StreamLog, ">")
	if err != nil || last.Seq <= c.seq {
		return err
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	return b.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog, From: c.seq + 1}, func(_ context.Context, batch []bus.RawMsg) error {
		for _, m := range batch {
			e, err := m.Event()
			if err == nil {
				err = c.apply(e, m.Time)
			}
			if err != nil {
				return err
			}
			if c.seq = m.Seq; c.seq >= last.Seq {
				done()
			}
		}
		return nil
	})
}

func (c *chronicle) exec(id string) *chronicled {
	if c.execs[id] == nil {
		c.execs[id] = &chronicled{ends: map[string]runEnd{}}
	}
	return c.execs[id]
}

func (c *chronicle) apply(e events.Event, at time.Time) error {
	if f, ok, err := events.RunFactOf(e); err != nil || ok {
		if state := f.TargetState(); ok && state.Final() {
			c.end(f.ExecID, f.PCID, runEnd{at, state == events.StateSucceeded})
		}
		return err
	}
	p, err := e.Payload()
	if err != nil {
		return err
	}
	switch p := p.(type) {
	case events.ScheduleTicked:
		c.ticks[p.ID] = append(c.ticks[p.ID], ledgerRow{p, at})
	case events.ExecRequested:
		x := c.exec(p.ExecID)
		x.requested++
		plan, err := catalog.ParsePlanDocument(p.Plan)
		if err != nil {
			return err
		}
		x.plan = *plan
	case events.ExecPlanned:
		c.exec(p.ExecID).planned++
		for _, s := range p.Skipped {
			c.end(p.ExecID, s.PCID, runEnd{at, false})
		}
	case events.ExecClosed:
		x := c.exec(p.ExecID)
		x.closed, x.anybody = at, p.Totals.Expected[events.StateSucceeded]+p.Totals.Others[events.StateSucceeded] > 0
	case events.ExecExpired:
		x := c.exec(p.ExecID)
		if x.expired = at; x.closed.IsZero() {
			x.closed, x.anybody = at, p.Totals.Expected[events.StateSucceeded]+p.Totals.Others[events.StateSucceeded] > 0
		}
	}
	return nil
}

// end notes the first end of a run that came while the exec had not expired.
func (c *chronicle) end(exec, pc string, end runEnd) {
	x := c.exec(exec)
	if _, before := x.ends[pc]; !before && x.expired.IsZero() {
		x.ends[pc] = end
	}
}

// ended is when an exec ended on an endpoint, or as a whole for the empty id; false while it has not.
func (x *chronicled) ended(pc string) (runEnd, bool) {
	if pc == "" {
		return runEnd{x.closed, x.anybody}, !x.closed.IsZero()
	}
	if end, ok := x.ends[pc]; ok {
		return end, true
	}
	return runEnd{x.expired, false}, !x.expired.IsZero()
}

// requireNominal holds a schedule's rows against the nominal times that it must have: each is in one row, and nothing else
// is. It gives the outcome of each.
func (c *chronicle) requireNominal(t require.TestingT, id string, nominal []time.Time) map[time.Time]string {
	place := make(map[time.Time]int, len(nominal))
	for i, at := range nominal {
		place[at.UTC()] = i
	}
	seen := make(map[time.Time]string, len(nominal))
	for _, row := range c.ticks[id] {
		from, ok := place[row.From.UTC()]
		require.True(t, ok, "%s: %s is no nominal time", id, row.From)
		to, ok := place[row.To.UTC()]
		require.True(t, ok, "%s: %s is no nominal time", id, row.To)
		require.Equal(t, row.Count, to-from+1, "%s: from %s to %s", id, row.From, row.To)
		for _, at := range nominal[from : to+1] {
			require.Empty(t, seen[at.UTC()], "%s: %s twice in the ledger", id, at)
			seen[at.UTC()] = fmt.Sprintf("%s %s", row.Outcome, row.Reason)
		}
		c.requireExec(t, id, row)
	}
	for _, at := range nominal {
		require.NotEmpty(t, seen[at.UTC()], "%s: %s is not in the ledger", id, at)
	}
	return seen
}

// requireExec: a row that fired has one exec, which was asked for and planned once, and no other has.
func (c *chronicle) requireExec(t require.TestingT, id string, row ledgerRow) {
	fired := row.Outcome == events.TickFired || row.Outcome == events.TickCaughtUp
	require.Equal(t, fired, row.Exec != nil, "%s: %s", id, row.From)
	if fired {
		x := c.exec(row.Exec.ExecID)
		require.Equal(t, []int{1, 1}, []int{x.requested, x.planned}, "%s: exec of %s", id, row.From)
		require.Equal(t, row.From, row.To, id)
	}
}

// cadence is an interval as its check understands it.
type cadence struct {
	id      string
	every   time.Duration // 0: once
	whole   bool
	members []string
	from    time.Time // when it was saved
	// open and alive say when it may fire, and on whom; nil: always.
	open  func(minute time.Time) bool
	alive func(pc string, minute time.Time) bool
	// slack is how long after it is due a fire may come.
	slack time.Duration
}

// requireCadence holds the fires of an interval against its rule: nobody before his time, nobody while his run is open, and
// nobody left out while he is due and alive and the gates are open. It gives the number of fires.
func (c *chronicle) requireCadence(t require.TestingT, x cadence, until time.Time) int {
	fires := map[string][]ledgerRow{}
	var before time.Time
	for _, row := range c.ticks[x.id] {
		require.Equal(t, events.TickFired, row.Outcome, "%s: %s %s", x.id, row.From, row.Reason)
		require.True(t, row.From.After(before) && row.From.Equal(row.From.Truncate(time.Minute)), "%s: %s after %s", x.id, row.From, before)
		before = row.From
		c.requireExec(t, x.id, row)
		pcs := c.exec(row.Exec.ExecID).plan.Target.PCs
		if x.whole {
			pcs = []string{""}
		}
		for _, pc := range pcs {
			fires[pc] = append(fires[pc], row)
		}
	}
	members, n := x.members, 0
	if x.whole {
		members = []string{""}
	}
	for pc := range fires {
		require.Contains(t, members, pc, x.id)
	}
	for _, pc := range members {
		x.requireEach(t, c, pc, fires[pc], until)
		n += len(fires[pc])
	}
	return n
}

// requireEach checks the fires on one endpoint.
func (x cadence) requireEach(t require.TestingT, c *chronicle, pc string, fires []ledgerRow, until time.Time) {
	due, failures := x.from, 0
	for _, row := range append(slices.Clone(fires), ledgerRow{}) {
		at := row.From
		if row.Exec == nil {
			at = until
		} else {
			require.False(t, at.Before(due.Truncate(time.Minute)), "%s on %q: fired at %s, due at %s", x.id, pc, at, due)
			require.False(t, row.at.Before(due), "%s on %q: fired at %s before %s", x.id, pc, row.at, due)
			require.True(t, x.mayFire(pc, at), "%s on %q: fired at %s", x.id, pc, at)
		}
		// A minute at which it had to be fired, this long before it was, would be one that was left out.
		for minute := due.Truncate(time.Minute).Add(time.Minute); minute.Add(x.slack).Before(at); minute = minute.Add(time.Minute) {
			left := x.mayFire(pc, minute) && x.mayFire(pc, minute.Add(x.slack))
			require.False(t, left, "%s on %q: left out at %s, due at %s, next at %s", x.id, pc, minute, due, at)
		}
		if row.Exec == nil {
			return
		}
		end, ended := c.exec(row.Exec.ExecID).ended(pc)
		if !ended {
			due = until.AddDate(100, 0, 0) // nothing more until it has
			continue
		}
		switch {
		case !end.succeeded:
			failures++
			due = end.at.Add(min(time.Minute<<(failures-1), 6*time.Hour))
		case x.every == 0:
			due = until.AddDate(100, 0, 0)
		default:
			due, failures = at.Add(x.every), 0
			if end.at.After(due) {
				due = end.at
			}
		}
	}
}

func (x cadence) mayFire(pc string, minute time.Time) bool {
	return (x.open == nil || x.open(minute)) && (x.alive == nil || x.alive(pc, minute))
}
