package systemtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/libs/readmodel"
)

// truth is what the log says of an exec, folded here and nowhere else.
type truth struct {
	planned                  events.ExecPlanned
	plannedAt                time.Time
	facts                    map[string]int // by type
	released                 map[string]released
	dispatched               map[string]int
	dispatchedAt             map[string]time.Time
	outcome                  events.Outcome
	wrong                    string // what is wrong with the outcome
	stopped, halted, resumed time.Time
	targets                  map[string]*targetTruth
	story                    []chapter
	totals                   events.Totals // of its last fact that says them
}

// chapter is one fact of an exec that a budget asks for.
type chapter struct {
	at       time.Time
	released []string
	halted   bool
	pc       string
	answered events.TargetState
}

type released struct {
	events.WaveReleased
	at time.Time
}

type targetTruth struct {
	state              events.TargetState
	expected, answered bool // answered: the endpoint itself has ended it
	heard              bool // it has said anything
	answeredAt         time.Time
	wave               int
}

var order = map[events.TargetState]int{"": 0, events.StateExpected: 1, events.StateWaiting: 1, events.StateSent: 2, events.StateReceived: 3, events.StateRunning: 4}

// truths folds the whole log.
func (w *theatre) truths() map[string]*truth {
	w.t.Helper()
	b := bustest.Dial(w.t, w.broker)
	all := map[string]*truth{}
	ctx, done := context.WithCancel(w.t.Context())
	defer done()
	last, err := b.LastSeq(w.t.Context(), events.StreamLog)
	require.NoError(w.t, err)
	require.NoError(w.t, b.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog}, func(_ context.Context, batch []bus.RawMsg) error {
		for _, m := range batch {
			e, err := m.Event()
			if err != nil {
				return err
			}
			if err := fold(all, e, m.Time); err != nil {
				return err
			}
			if m.Seq >= last {
				done()
			}
		}
		return nil
	}))
	return all
}

func fold(all map[string]*truth, e events.Event, at time.Time) error {
	run, is, err := events.RunFactOf(e)
	if err != nil {
		return err
	}
	if is {
		if x := all[run.ExecID]; x != nil {
			x.said(run, at)
		}
		return nil
	}
	if e.Aggregate() != events.AggregateExec {
		return nil
	}
	p, err := e.Payload()
	if err != nil {
		return err
	}
	x := all[e.Subject]
	if x == nil {
		x = &truth{facts: map[string]int{}, released: map[string]released{}, dispatched: map[string]int{}, dispatchedAt: map[string]time.Time{}, targets: map[string]*targetTruth{}}
		all[e.Subject] = x
	}
	x.facts[strings.TrimPrefix(e.Type, "kanade.exec.")]++
	switch p := p.(type) {
	case events.ExecPlanned:
		x.plan(p, at)
	case events.WaveReleased:
		x.released[fmt.Sprintf("%d/%d", p.Wave, p.From)] = released{p, at}
		ids, _ := fanout.Part(x.planned, p)
		x.story = append(x.story, chapter{at: at, released: ids})
	case events.WaveDispatched:
		x.dispatched[fmt.Sprintf("%d/%d", p.Wave, p.From)]++
		x.dispatchedAt[fmt.Sprintf("%d/%d", p.Wave, p.From)] = at
		w := x.planned.Waves[p.Wave]
		ids := slices.Concat(w.Expected, w.Waiting)
		if p.To > 0 {
			ids = ids[p.From:p.To]
		}
		for _, pc := range ids {
			if t := x.targets[pc]; t.state == events.StateExpected {
				t.state = events.StateSent
			}
		}
	case events.ExecKilled:
		x.stop(events.OutcomeKilled, at)
	case events.ExecCancelled:
		x.stop(events.OutcomeCancelled, at)
	case events.ExecResumed:
		x.resumed = at
	case events.ExecHalted:
		x.halted = at
		x.story = append(x.story, chapter{at: at, halted: true})
		x.stop(events.OutcomeHalted, at)
	case events.ExecClosed:
		if x.outcome == "" && p.Outcome != x.verdict() {
			x.wrong = fmt.Sprintf("it closed as %s, and is %s", p.Outcome, x.verdict())
		}
		x.end(p.Outcome)
		x.totals = p.Totals
	case events.ExecCorrected:
		x.totals = p.Totals
	case events.ExecExpired:
		x.end(p.Outcome)
		x.totals = p.Totals
		for _, t := range x.targets {
			if order[t.state] == 4 {
				t.state = events.StateUnknown
			} else if order[t.state] > 0 {
				t.state = events.StateExpired
			}
		}
	}
	return nil
}

func (x *truth) plan(p events.ExecPlanned, at time.Time) {
	x.planned, x.plannedAt = p, at
	for i, w := range p.Waves {
		for _, pc := range w.Expected {
			x.targets[pc] = &targetTruth{state: events.StateExpected, expected: true, wave: i}
		}
		for _, pc := range w.Waiting {
			x.targets[pc] = &targetTruth{state: events.StateWaiting, wave: i}
		}
	}
	for _, s := range p.Skipped {
		x.targets[s.PCID] = &targetTruth{state: events.StateSkipped}
	}
}

// verdict is what the answers of those that are expected amount to, of the others where nobody is.
func (x *truth) verdict() events.Outcome {
	good, all := map[bool]int{}, map[bool]int{}
	for _, t := range x.targets {
		all[t.expected]++
		if t.state == events.StateSucceeded {
			good[t.expected]++
		}
	}
	switch counts := all[true] > 0; good[counts] {
	case 0:
		return events.OutcomeFailed
	case all[counts]:
		return events.OutcomeSucceeded
	default:
		return events.OutcomePartial
	}
}

func (x *truth) end(o events.Outcome) {
	if x.outcome == "" {
		x.outcome = o
	}
}

func (x *truth) stop(o events.Outcome, at time.Time) {
	x.end(o)
	if x.stopped.IsZero() {
		x.stopped = at
	}
	for _, t := range x.targets {
		if n := order[t.state]; n == 1 || n == 2 {
			t.state = events.StateSkipped
		}
	}
}

// said folds what an endpoint says: forward only; silence that was settled, and a lost run, are overruled.
func (x *truth) said(f events.RunFact, at time.Time) {
	t := x.targets[f.PCID]
	if t == nil {
		t = &targetTruth{}
		x.targets[f.PCID] = t
	}
	t.heard = true
	next := f.TargetState()
	if next.Final() && !t.answered {
		x.story = append(x.story, chapter{at: at, pc: f.PCID, answered: next})
		t.answeredAt = at
	}
	switch {
	case t.answered && !(t.state == events.StateUnknown && next.Final() && next != events.StateUnknown):
		return
	case !t.answered && order[t.state] > 0 && !next.Final() && order[next] <= order[t.state]:
		return
	case t.state == events.StateUnknown && !next.Final():
		return // it had been started: what comes late of the beginning says nothing
	}
	t.state, t.answered = next, next.Final()
}

// requireTruth compares the read model with the fold.
func (w *theatre) requireTruth(all map[string]*truth) {
	w.t.Helper()
	reader, err := readmodel.OpenReader(w.readModel)
	require.NoError(w.t, err)
	defer reader.Close()
	last, err := w.operator.LastSeq(w.t.Context(), events.StreamLog)
	require.NoError(w.t, err)
	require.NoError(w.t, reader.WaitFor(w.t.Context(), last))
	for _, x := range w.execs {
		want, total := map[string]string{}, events.Totals{Expected: map[events.TargetState]int{}}
		for pc, t := range all[x.id].targets {
			want[pc] = fmt.Sprintf("%s %t", t.state, t.expected)
			total.Add(events.Target{State: t.state, Expected: t.expected})
		}
		targets, _, err := reader.Targets(w.t.Context(), readmodel.TargetFilter{ExecID: x.id, Page: readmodel.Page{Limit: readmodel.All}})
		require.NoError(w.t, err)
		got := map[string]string{}
		for _, t := range targets {
			got[t.PCID] = fmt.Sprintf("%s %t", t.State, t.Expected)
		}
		require.Equal(w.t, want, got, "targets of exec %s", x.id)
		row, err := reader.Execution(w.t.Context(), x.id)
		require.NoError(w.t, err)
		require.Equal(w.t, all[x.id].outcome, row.Outcome, "outcome of exec %s", x.id)
		require.Empty(w.t, all[x.id].wrong, "outcome of exec %s", x.id)
		require.Equal(w.t, total.Clone(), row.Totals, "totals of exec %s", x.id)
		require.True(w.t, total.Equal(all[x.id].totals), "the log's last totals of exec %s are %v, not %v", x.id, all[x.id].totals, total)
	}
}

// requireOnce holds every exec against its plan: each wave went out once, to nobody else, and nobody ran twice.
func (w *theatre) requireOnce(all map[string]*truth) {
	w.t.Helper()
	w.starts.mu.Lock()
	defer w.starts.mu.Unlock()
	for key, n := range w.starts.runs {
		require.Equal(w.t, 1, n, "run %s was started more than once", key)
		id, pc, _ := strings.Cut(key, " ")
		require.Contains(w.t, all[id].targets, pc)
	}
	for _, x := range w.execs {
		t := all[x.id]
		require.NotNil(w.t, t, x.id)
		require.Equal(w.t, 1, t.facts["planned.v1"], x.id)
		require.Equal(w.t, len(t.released), t.facts["wave-released.v1"], "waves of exec %s were released twice", x.id)
		require.Equal(w.t, len(t.dispatched), t.facts["wave-dispatched.v1"], "waves of exec %s were dispatched twice", x.id)
		require.NotEmpty(w.t, t.outcome, "exec %s has not ended", x.id)
		planned := map[string]bool{}
		for _, wave := range t.planned.Waves {
			for _, pc := range slices.Concat(wave.Expected, wave.Waiting) {
				require.False(w.t, planned[pc], "%s is in two waves", pc)
				planned[pc] = true
			}
		}
		for pc := range t.targets {
			require.True(w.t, planned[pc] || t.targets[pc].state == events.StateSkipped, "%s ran exec %s and is not in its plan", pc, x.id)
		}
		if t.stopped.IsZero() {
			for i, wave := range t.planned.Waves {
				if wave.Pause || t.planned.MaxParallel != nil || len(wave.Expected)+len(wave.Waiting) == 0 {
					continue
				}
				require.Contains(w.t, t.released, fmt.Sprintf("%d/0", i), "wave %d of exec %s never went out", i, x.id)
			}
			require.Equal(w.t, slices.Sorted(maps.Keys(t.released)), slices.Sorted(maps.Keys(t.dispatched)), "exec %s", x.id)
		}
	}
}

// requireInTime demands that a wave goes out, its last command included, within a second of its time, or of the time from
// which on waves could go out: counted from the submission, or from the end of the wave before where all that are expected
// in that have answered.
func (w *theatre) requireInTime(all map[string]*truth) (checked int) {
	w.t.Helper()
	for _, x := range w.execs {
		t := all[x.id]
		for key, r := range t.released {
			wave := t.planned.Waves[r.Wave]
			if wave.Pause || r.From > 0 || r.To > 0 {
				continue
			}
			due, known := wave.DueAt, true
			if wave.After {
				due, known = t.ended(r.Wave - 1)
				due = due.Add(time.Duration(wave.DelaySecs) * time.Second)
			}
			if !known {
				continue
			}
			require.False(w.t, r.at.Before(due), "wave %d of exec %s went out before its time", r.Wave, x.id)
			if t.resumed.After(due) {
				due = t.resumed
			}
			out := r.at
			if at, dispatched := t.dispatchedAt[key]; dispatched {
				out = at
			}
			if late := w.workableBetween(due, out); late > time.Second {
				w.t.Errorf("wave %d of exec %s was due at %s, released at %s and out at %s, though nothing was in its way for %s", r.Wave, x.id, due, r.at, out, late)
			}
			checked++
		}
	}
	return checked
}

// ended is when the last expected answer of a wave came, or its last command went out; false where one has not come.
func (x *truth) ended(wave int) (time.Time, bool) {
	last, known := x.dispatchedAt[fmt.Sprintf("%d/0", wave)]
	expected := x.planned.Waves[wave].Expected
	for _, pc := range expected {
		at := x.targets[pc].answeredAt
		known = known && !at.IsZero()
		if at.After(last) {
			last = at
		}
	}
	return last, known && len(expected) > 0
}

// workableBetween is the longest time at a stretch between two instants for which waves could go out.
func (w *theatre) workableBetween(from, to time.Time) (longest time.Duration) {
	for i, m := range w.workable {
		until := to
		if i+1 < len(w.workable) && w.workable[i+1].at.Before(until) {
			until = w.workable[i+1].at
		}
		begin := m.at
		if begin.Before(from) {
			begin = from
		}
		if m.is && until.Sub(begin) > longest {
			longest = until.Sub(begin)
		}
	}
	return longest
}

// requireNothingLeft demands that EXEC holds no command of the execs given.
func (w *theatre) requireNothingLeft(of func(*truth) bool, all map[string]*truth) {
	w.t.Helper()
	for _, id := range w.stored() {
		exec, _, _ := strings.Cut(id, "/")
		if t := all[exec]; t != nil {
			require.False(w.t, of(t), "command %s is left", id)
		}
	}
}

// stored are the message ids of the commands in EXEC.
func (w *theatre) stored() (ids []string) {
	w.t.Helper()
	info, err := w.operator.JetStream().Stream(w.t.Context(), events.StreamExec)
	require.NoError(w.t, err)
	state, err := info.Info(w.t.Context())
	require.NoError(w.t, err)
	for seq := state.State.FirstSeq; seq > 0 && seq <= state.State.LastSeq; seq++ {
		m, ok, err := w.operator.Get(w.t.Context(), events.StreamExec, seq)
		require.NoError(w.t, err)
		if ok {
			c, err := wire.DecodeCommand(m.Data)
			require.NoError(w.t, err)
			require.True(w.t, strings.HasPrefix(m.Header[events.HeaderMsgID][0], c.ExecID+"/"))
			ids = append(ids, m.Header[events.HeaderMsgID][0])
		}
	}
	return ids
}
