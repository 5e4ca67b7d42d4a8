package readmodel

import (
	"context"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

const aDay = 24 * time.Hour

// brief is a memory that is short enough to be tested.
var brief = events.Retain{History: 10 * aDay, Ledger: 30 * aDay}

// A file that was fed all along, and one that is made of what the log still holds, have the same rows at any time, however
// facts are told again, late and in another order; with what housekeeping does to the log in between. KANADE_PROVE=full
// checks 2 000 logs.
func TestProveForgetting(t *testing.T) {
	seed := extent(t, 30, 2_000)
	var logs, messages, rebuilds, gone int
	rapid.Check(t, func(t *rapid.T) {
		a := age(t)
		logs, messages, rebuilds, gone = logs+1, messages+len(a.journal.messages), rebuilds+a.rebuilds, gone+len(a.gone)
	})
	t.Logf("PROVED %s: %d logs, %d messages, %d of them pruned, %d rebuilds of what was left, seed %s", t.Name(), logs, messages, gone, rebuilds, seed)
}

// aging is a log over months, the file that is fed from it, and what housekeeping has taken out of it.
type aging struct {
	t        *rapid.T
	journal  *journal
	live     *Writer
	applied  int
	gone     map[uint64]bool
	rebuilds int
	execs    map[string]*agingExec
}

type agingExec struct {
	events.ExecSummary
	totals    events.Totals
	last      uint64
	reducedAt time.Time
}

// age lets a log be written in the course of some weeks, then wait, and compares once in a while.
func age(t *rapid.T) *aging {
	dir, err := os.MkdirTemp("", "forget")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	a := &aging{t: t, journal: &journal{t: t}, gone: map[uint64]bool{}, execs: map[string]*agingExec{}, live: openBrief(t, dir)}
	defer func() { require.NoError(t, a.live.Close()) }()
	queues := drawAging(t)
	for len(queues) > 0 {
		n := rapid.IntRange(0, len(queues)-1).Draw(t, "next")
		if len(queues[n]) == 0 {
			queues = slices.Delete(queues, n, n+1)
			continue
		}
		a.wait(rapid.SampledFrom([]time.Duration{0, 0, 0, 0, time.Hour, 9 * time.Hour, 3 * aDay, 8 * aDay}).Draw(t, "wait"))
		queues[n][0](a.journal)
		queues[n] = queues[n][1:]
	}
	for range 5 {
		a.wait(rapid.SampledFrom([]time.Duration{4 * aDay, 8 * aDay, 15 * aDay}).Draw(t, "rest"))
		a.compare()
	}
	return a
}

func openBrief(t require.TestingT, dir string) *Writer {
	slot, err := ClaimSlot(dir, brief)
	require.NoError(t, err)
	w, _, err := slot.Continue(context.Background())
	require.NoError(t, err)
	w.slot = slot
	return w
}

// wait lets time pass. A day begins with a fact of the clock, and with housekeeping.
func (a *aging) wait(d time.Duration) {
	for end := a.journal.later + d; a.journal.later < end; {
		midnight := a.journal.later.Truncate(aDay) + aDay
		if midnight > end {
			a.journal.later = end
			return
		}
		a.journal.later = midnight
		a.journal.append(events.ClockTicked{ID: events.ClockID, Day: a.journal.now().Format(time.DateOnly)}, "service:scheduler")
		a.feed()
		a.keepHouse()
		if rapid.IntRange(0, 9).Draw(a.t, "compared") == 0 {
			a.compare()
		}
	}
}

// feed brings the live file up to the log, in batches, and lets it forget some of what it may.
func (a *aging) feed() {
	for a.applied < len(a.journal.messages) {
		to := min(a.applied+rapid.IntRange(1, 8).Draw(a.t, "batch"), len(a.journal.messages))
		_, err := a.live.Apply(context.Background(), events.StreamLog, a.journal.messages[a.applied:to])
		require.NoError(a.t, err)
		a.applied = to
		if rapid.Bool().Draw(a.t, "forgets") {
			_, err = a.live.Forget(context.Background())
			require.NoError(a.t, err)
		}
		if rapid.Bool().Draw(a.t, "words") {
			_, err = a.live.WriteWords(context.Background())
			require.NoError(a.t, err)
		}
	}
}

// keepHouse is what the scheduler does to the log once a day, by itself.
func (a *aging) keepHouse() {
	now := a.journal.now()
	a.foldExecs()
	for _, id := range slices.Sorted(maps.Keys(a.execs)) {
		x := a.execs[id]
		if x.ExpiredAt.IsZero() && x.InitiatedAt.Before(now.Add(-brief.History+aDay)) {
			a.journal.append(events.ExecExpired{ExecID: id, Outcome: events.OutcomeExpired, Totals: x.totals}, "service:scheduler")
		}
	}
	a.foldExecs()
	for _, id := range slices.Sorted(maps.Keys(a.execs)) {
		x := a.execs[id]
		if x.reducedAt.IsZero() && !x.ExpiredAt.IsZero() && x.InitiatedAt.Before(brief.HistoryAt(now)) {
			a.journal.append(events.ExecReduced{ExecID: id, ExecSummary: x.ExecSummary, Totals: x.totals}, "service:scheduler")
			x.reducedAt, x.last = now, uint64(len(a.journal.messages))
		}
	}
	old := func(m Message, age time.Duration) bool { return m.Time.Before(now.Add(-age - events.Slack)) }
	for _, m := range Decode(events.StreamLog, a.journal.messages).messages {
		raw := a.journal.messages[m.seq-1]
		_, ticked := m.payload.(events.ScheduleTicked)
		switch {
		case raw.Header[events.HeaderTTL] == nil && old(raw, brief.History), ticked && old(raw, brief.Ledger):
			a.gone[m.seq] = true
		case m.poison == nil && m.event.Aggregate() == events.AggregateExec:
			x := a.execs[m.event.Subject]
			reduced := x != nil && !x.reducedAt.IsZero() && x.reducedAt.Before(now.Add(-events.Slack)) && m.seq < x.last
			if reduced || x != nil && m.seq == x.last && x.InitiatedAt.Before(now.Add(-brief.Ledger-events.Slack)) {
				a.gone[m.seq] = true
			}
		}
	}
}

// foldExecs folds every exec anew, as whoever has the whole log would: its facts, and its totals over its targets.
func (a *aging) foldExecs() {
	targets := foldTargets(a.journal.messages)
	for _, m := range Decode(events.StreamLog, a.journal.messages).messages {
		if m.poison != nil || m.payload == nil || m.event.Aggregate() != events.AggregateExec {
			continue
		}
		x := a.execs[m.event.Subject]
		if x == nil {
			if _, ok := m.payload.(events.ExecRequested); !ok {
				continue
			}
			x = &agingExec{}
			a.execs[m.event.Subject] = x
		}
		if x.reducedAt.IsZero() {
			x.Apply(m.payload, &m.event, m.seq)
		}
	}
	for id, x := range a.execs {
		x.totals = events.Totals{}
		for key, target := range targets {
			if key[0] == id {
				x.totals.Add(target)
			}
		}
	}
}

// compare holds the live file against one that is made of what is left of the log.
func (a *aging) compare() {
	a.feed()
	have, err := a.live.Digest(context.Background())
	require.NoError(a.t, err)
	checkTotals(a.t, a.live)
	dir, err := os.MkdirTemp("", "forget")
	require.NoError(a.t, err)
	defer os.RemoveAll(dir)
	w := openBrief(a.t, dir)
	defer func() { require.NoError(a.t, w.Close()) }()
	var left []Message
	for _, m := range a.journal.messages {
		if !a.gone[m.Seq] {
			left = append(left, m)
		}
	}
	_, err = w.Apply(context.Background(), events.StreamLog, left)
	require.NoError(a.t, err)
	want, err := w.Digest(context.Background())
	require.NoError(a.t, err)
	if !maps.Equal(have, want) {
		is, err := OpenView(context.Background(), a.live.Path())
		require.NoError(a.t, err)
		defer is.Close()
		should, err := OpenView(context.Background(), w.Path())
		require.NoError(a.t, err)
		defer should.Close()
		_, rows, err := Compare(context.Background(), is, should, 10)
		require.NoError(a.t, err)
		for _, m := range Decode(events.StreamLog, a.journal.messages).messages {
			a.t.Logf("%d %s %s %s gone %v", m.seq, m.at.Format(time.DateTime), m.event.Type, m.event.Subject, a.gone[m.seq])
		}
		a.t.Fatalf("at %s, of %d messages %d are left: %v", a.journal.now(), len(a.journal.messages), len(left), rows)
	}
	a.rebuilds++
}

// drawAging draws execs, runs and documents as drawLog does, but for an endpoint that says less than before, weeks later.
func drawAging(t *rapid.T) [][]step {
	var queues [][]step
	for i := range rapid.IntRange(1, 3).Draw(t, "execs") {
		exec := "exec-" + string(rune('0'+i))
		pcs := rapid.IntRange(0, 3).Draw(t, "pcs")
		queues = append(queues, briefly(drawExec(t, exec, pcs)))
		for pc := range pcs {
			queues = append(queues, drawAgingRun(t, exec, pc))
		}
	}
	return append(queues, drawAgingRun(t, "", 9), drawDocuments(t))
}

// briefly lets no fact of an exec come later than its expiry, which is within the history.
func briefly(steps []step) []step {
	var begun time.Time
	for i, s := range steps {
		steps[i] = func(j *journal) {
			if begun.IsZero() {
				begun = j.now()
			}
			if j.now().Before(begun.Add(brief.History - aDay)) {
				s(j)
			}
		}
	}
	return steps
}

func drawAgingRun(t *rapid.T, exec string, pc int) []step {
	r := run(exec, pc)
	var started time.Time // by the endpoint, when it says the first word
	start := func(j *journal) time.Time {
		if started.IsZero() {
			started = j.now()
		}
		return started
	}
	end := rapid.SampledFrom([]events.TargetState{events.StateSucceeded, events.StateFailed, events.StateUnknown}).Draw(t, "end")
	steps := []step{
		func(j *journal) { j.append(events.RunStarted{Run: r, StartedAt: start(j)}, "agent:x") },
		func(j *journal) {
			f := finished(r, end)
			f.StartedAt, f.FinishedAt = start(j), start(j).Add(time.Second)
			j.append(f, "agent:x")
		},
	}
	if rapid.Bool().Draw(t, "old agent") && exec != "" {
		steps = []step{func(j *journal) {
			j.raw("events.started."+exec+"."+r.PCID, wire.EventStarted{
				ResultID: r.ResultID, RequestID: r.RequestID, ExecID: exec, PCID: r.PCID, StartedAt: start(j), ManifestID: "hello", Version: "1.0.0",
			})
		}, func(j *journal) {
			j.raw("results.7", wire.ExecResult{
				ResultID: r.ResultID, RequestID: r.RequestID, ExecID: exec, PCID: r.PCID, ExitCode: 1, Stderr: "oops\n",
				StartedAt: start(j), FinishedAt: start(j).Add(time.Second), ManifestID: "hello",
			})
		}}
	}
	return rapid.Permutation(repeat(t, steps)).Draw(t, "order")
}

// What is too old when it is applied is forgotten with the next step, not when the hour is over: whoever waits for a file
// that has forgotten everything would wait as long.
func TestWhatIsOldAtOnceIsForgottenAtOnce(t *testing.T) {
	j := &journal{t: t, later: 90 * aDay}
	w := openBrief(t, t.TempDir())
	defer w.Close()
	feed := func() {
		t.Helper()
		_, err := w.Apply(t.Context(), events.StreamLog, j.messages)
		require.NoError(t, err)
		require.NoError(t, w.ForgetAll(t.Context()))
		v, err := OpenView(t.Context(), w.Path())
		require.NoError(t, err)
		forgotten, err := v.Forgotten(t.Context(), brief)
		require.NoError(t, err)
		require.True(t, forgotten)
		require.NoError(t, v.Close())
	}
	j.append(events.ClockTicked{ID: events.ClockID, Day: "x"}, "service:scheduler")
	feed()
	j.append(events.ExecKilled{ExecID: "nobody-asked-for-it"}, "user:op")
	feed()
	old := events.ExecReduced{ExecID: "old", ExecSummary: events.ExecSummary{JobID: "hello", InitiatedAt: begin, Sequence: 1}}
	j.append(old, "service:scheduler")
	feed()
	checkRows(t, w, "executions", 0)
	checkRows(t, w, "target_totals", 0)
}

// Of an exec that nobody requested, or whose request can't be read, there is no row: it would be forgotten as soon as
// anybody looked, and a file that had forgotten would not be like one that had not.
func TestFactsWithoutTheirRequestMakeNoRows(t *testing.T) {
	j := &journal{t: t}
	w := openBrief(t, t.TempDir())
	defer w.Close()
	j.append(events.ExecPlanned{ExecID: "e1", Waves: []events.PlannedWave{{Expected: []string{"pc-00"}}}, ExpiresAt: begin}, "service:scheduler")
	j.append(events.WaveReleased{ExecID: "e1"}, "service:scheduler")
	j.append(events.ExecClosed{ExecID: "e1", Outcome: events.OutcomeSucceeded}, "service:scheduler")
	apply(t, w, j.messages)
	for _, table := range []string{"executions", "waves", "targets", "target_totals"} {
		checkRows(t, w, table, 0)
	}
	j.append(requested("e1", "hello"), "user:op")
	apply(t, w, j.messages)
	var planned int64
	require.NoError(t, w.db.conn.QueryRowContext(t.Context(), "SELECT planned_at FROM executions").Scan(&planned))
	require.Zero(t, planned, "it begins with its request")
	j.append(events.ExecPlanned{ExecID: "e1", Waves: []events.PlannedWave{{Expected: []string{"pc-01"}}}, ExpiresAt: begin}, "service:scheduler")
	apply(t, w, j.messages)
	checkRows(t, w, "waves", 1)
	checkRows(t, w, "targets", 1)
}

func checkRows(t *testing.T, w *Writer, table string, want int) {
	t.Helper()
	var n int
	require.NoError(t, w.db.conn.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	require.Equal(t, want, n, table)
}
