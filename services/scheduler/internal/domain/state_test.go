package domain_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler/internal/domain"
)

var runStates = []events.TargetState{
	events.StateSucceeded, events.StateFailed, events.StateTimedOut, events.StateKilled, events.StateUnknown,
}

func runFact(t *rapid.T, execs, pcs []string) events.Payload {
	r := events.Run{PCID: rapid.SampledFrom(pcs).Draw(t, "pc"), ExecID: rapid.SampledFrom(execs).Draw(t, "exec"), RequestID: "r"}
	r.ResultID = events.ResultID(r.RequestID, r.PCID)
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return events.RunReceived{Run: r}
	case 1:
		return events.RunStarted{Run: r}
	case 2:
		return events.RunSkipped{Run: r, Code: 125, Reason: events.SkipReasonDeadline}
	default:
		return events.RunFinished{Run: r, State: rapid.SampledFrom(runStates).Draw(t, "state")}
	}
}

// waveFact says something of a wave, in numbers that fit no plan as often as not: the log may hold any.
func waveFact(t *rapid.T, exec string) events.Payload {
	number := rapid.SampledFrom([]int{0, 0, 1, 1, 2, 3, 4, -1, math.MinInt, math.MaxInt})
	wave, from, to := number.Draw(t, "wave"), number.Draw(t, "from"), number.Draw(t, "to")
	switch rapid.IntRange(0, 4).Draw(t, "wave is") {
	case 0:
		return events.WaveAdvanced{ExecID: exec, Wave: wave}
	case 1:
		return events.WaveReleased{ExecID: exec, Wave: wave, From: from, To: to}
	default:
		return events.WaveDispatched{ExecID: exec, Wave: wave, From: from, To: to}
	}
}

// The totals of an exec are those of its targets, recounted from the facts by somebody else, however the facts are
// repeated and reordered, and whenever the fold was saved and loaded.
func TestExecFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		pcs := names(6)
		p := events.ExecPlanned{ExecID: "x", ExpiresAt: start.Add(time.Hour), Waves: []events.PlannedWave{{Expected: pcs[:2], Waiting: pcs[2:4]}}, Skipped: []events.SkippedPC{{PCID: pcs[4], Reason: "r"}}}
		targets := map[string]events.Target{}
		for i, id := range pcs[:5] {
			state := []events.TargetState{events.StateExpected, events.StateExpected, events.StateWaiting, events.StateWaiting, events.StateSkipped}[i]
			targets[id] = events.Target{State: state, Expected: i < 2, Planned: true}
		}
		h.add(events.ExecRequested{ExecID: "x"}, p, events.WaveReleased{ExecID: "x"})
		sent := rapid.IntRange(0, 20).Draw(t, "sent")
		closed := false
		var said events.Totals // by the log, and when
		var saidAt time.Time
		for i := range rapid.IntRange(0, 40).Draw(t, "facts") {
			h.now = h.now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "pause")) * time.Second)
			if i == sent {
				h.add(events.WaveDispatched{ExecID: "x"})
				for id, x := range targets {
					if x.State == events.StateExpected {
						x.State = events.StateSent
						targets[id] = x
					}
				}
			}
			fact := runFact(t, []string{"x"}, pcs)
			counts := h.state.Execs["x"].Targets != nil
			h.add(fact)
			e, err := events.New(fact, events.Meta{ID: "1"})
			require.NoError(t, err)
			f, _, err := events.RunFactOf(e)
			require.NoError(t, err)
			if next, changed := targets[f.PCID].Apply(f, h.seq, h.now); changed && counts {
				targets[f.PCID] = next
			}
			if rapid.IntRange(0, 9).Draw(t, "reload") == 0 {
				h.reload()
			}
			x := h.state.Execs["x"]
			want := events.Totals{}
			for _, target := range targets {
				want.Add(target)
			}
			require.Equal(t, want, x.Totals)
			end, ok := domain.Close(x)
			require.Equal(t, !closed && i >= sent && want.Open() == 0, ok)
			if ok && rapid.Bool().Draw(t, "close") {
				require.Equal(t, want, end.Totals)
				require.Equal(t, want.Outcome(), end.Outcome)
				h.add(end)
				closed, said, saidAt = true, want, h.now
				if want.OthersOpen() == 0 {
					require.Nil(t, h.state.Execs["x"].Targets, "nobody is waited for")
				}
			}
			corrected, lookAt, ok := domain.Correct(h.state.Execs["x"], h.now)
			old := h.now.Sub(saidAt) >= time.Minute
			require.Equal(t, closed && old && !said.Equal(want), ok)
			if closed && !old && !said.Equal(want) {
				require.Equal(t, saidAt.Add(time.Minute), lookAt)
			} else {
				require.Zero(t, lookAt)
			}
			if ok && rapid.Bool().Draw(t, "correct") {
				require.Equal(t, want, corrected.Totals)
				h.add(corrected)
				said, saidAt = want, h.now
			}
		}
		x := h.state.Execs["x"]
		expired := domain.Expire(x, h.now)
		require.Zero(t, expired.Totals.Open()+expired.Totals.OthersOpen())
		if closed {
			require.Equal(t, x.Outcome, expired.Outcome)
		} else {
			require.Equal(t, events.OutcomeExpired, expired.Outcome)
		}
		before := saved(t, h.state)
		domain.Expire(x, h.now)
		require.Equal(t, before, saved(t, h.state), "a decision changes nothing")
		h.add(expired)
		require.Empty(t, h.state.Execs)
	})
}

// A kill that follows the close of an exec that everybody has answered finds nothing to settle; what endpoints repeat after
// it is not taken for somebody else's answer.
func TestKillAfterEverybodyAnsweredCountsNobodyTwice(t *testing.T) {
	h := newHistory(t)
	answer := events.RunFinished{Run: events.Run{PCID: "pc", ExecID: "x", RequestID: "r", ResultID: "i"}, State: events.StateSucceeded}
	h.add(
		events.ExecRequested{ExecID: "x"}, events.ExecPlanned{ExecID: "x", ExpiresAt: start.Add(time.Hour), Waves: []events.PlannedWave{{Expected: []string{"pc"}}}},
		events.WaveReleased{ExecID: "x"}, events.WaveDispatched{ExecID: "x"}, answer,
	)
	closed, ok := domain.Close(h.state.Execs["x"])
	require.True(t, ok)
	h.add(closed, events.ExecKilled{ExecID: "x"}, answer)
	h.reload()
	h.add(answer)
	require.Equal(t, closed.Totals, h.state.Execs["x"].Totals)
}

// A fold that was saved and loaded anywhere is the fold that went on.
func TestStateSurvivesSaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := newHistory(t), newHistory(t)
		execs, pcs := []string{"x", "y"}, names(3)
		plan, err := (&catalog.Plan{Target: catalog.Target{PCs: pcs}}).Document()
		require.NoError(t, err)
		for range rapid.IntRange(1, 40).Draw(t, "facts") {
			var p events.Payload
			exec := rapid.SampledFrom(execs).Draw(t, "of")
			nominal := a.now.Truncate(time.Minute)
			switch rapid.IntRange(0, 11).Draw(t, "fact") {
			case 0:
				p = events.ExecRequested{ExecID: exec, ScheduleID: "s", Nominal: &nominal}
			case 1:
				p = events.ExecPlanned{ExecID: exec, Waves: []events.PlannedWave{{Expected: pcs[:1], Waiting: pcs[1:2]}}, Skipped: []events.SkippedPC{{PCID: pcs[2]}}}
			case 2:
				p = waveFact(t, exec)
			case 3:
				p = events.ExecClosed{ExecID: exec, Outcome: events.OutcomePartial}
			case 4:
				p = events.ExecExpired{ExecID: exec, Outcome: events.OutcomeExpired}
			case 5:
				p = scheduleSaved(t, rapid.SampledFrom([]string{"when: {cron: '* * * * *'}", "when: {per_pc: {every: 5m}}", "when: {per_pc: {every: 5m}}\nenabled: false"}).Draw(t, "when"))
			case 6:
				p = events.ScheduleDeleted{ID: "s"}
			case 7:
				p = events.ScheduleTicked{ID: "s", From: nominal, To: nominal, Exec: &events.ExecRequested{ExecID: exec, Plan: plan}}
			case 8:
				if s := a.state.Schedules["s"]; s != nil && len(s.Pending) > 0 {
					var all []events.Progress
					for _, x := range s.Pending {
						all = append(all, x)
					}
					p = events.ScheduleProgressed{ID: "s", Changes: all}
					break
				}
				p = events.AgentGrouped{PCID: pcs[0], Groups: []string{"g"}}
			case 9:
				p = events.AgentSeen{PCID: rapid.SampledFrom(pcs).Draw(t, "seen"), AgentVersion: "1.0.0"}
			case 10:
				p = events.InstallationSaved{ID: events.InstallationID, Zone: "Europe/Berlin"}
			default:
				p = runFact(t, execs, pcs)
			}
			a.add(p)
			b.add(p)
			b.reload()
			require.Equal(t, saved(t, a.state), saved(t, b.state))
			require.Equal(t, a.state.Local(), b.state.Local())
		}
	})
}

func TestWhatCantBeDecodedCounts(t *testing.T) {
	h := newHistory(t)
	h.add(scheduleSaved(t, "when: {cron: '* * * * *'}"), events.ExecRequested{ExecID: "x"}, events.AgentSeen{PCID: "pc"})
	unknown := events.Event{Meta: events.Meta{ID: "1"}, Type: "kanade.schedule.renamed.v9", Subject: "s"}
	var decode *events.DecodeError
	require.ErrorAs(t, h.state.Apply(unknown, 4, h.now), &decode)
	require.Equal(t, uint64(4), h.state.Schedules["s"].LastSeq, "an append has to know of it")
	h.state.Skip("events.exec.x.strange", 5, h.now)
	h.state.Skip("events.agent.pc.strange", 6, h.now)
	h.state.Skip("results.3", 7, h.now)
	h.state.Skip("events.exec", 8, h.now)
	require.Equal(t, uint64(5), h.state.Execs["x"].LastSeq)
	require.Equal(t, uint64(6), h.state.Fleet["pc"].LastSeq)
	require.Equal(t, uint64(8), h.state.Position)
	h.state.Skip("events.exec.x.strange", 3, h.now)
	require.Equal(t, uint64(8), h.state.Position, "it never goes back")
	require.NotContains(t, h.state.Execs, "exec")
}

func TestClose(t *testing.T) {
	run := func(pc string) events.Run { return events.Run{PCID: pc, ExecID: "x", ResultID: pc} }
	ok := func(pc string) events.Payload { return events.RunFinished{Run: run(pc), State: events.StateSucceeded} }
	bad := func(pc string) events.Payload { return events.RunFinished{Run: run(pc), State: events.StateFailed} }
	planned := func(expected, waiting []string, skipped ...string) events.ExecPlanned {
		p := events.ExecPlanned{ExecID: "x", Waves: []events.PlannedWave{}}
		if len(expected)+len(waiting) > 0 {
			p.Waves = append(p.Waves, events.PlannedWave{Expected: expected, Waiting: waiting})
		}
		for _, id := range skipped {
			p.Skipped = append(p.Skipped, events.SkippedPC{PCID: id, Reason: "shell"})
		}
		return p
	}
	out := events.WaveDispatched{ExecID: "x"}
	l := func(ids ...string) []string { return ids }
	for name, c := range map[string]struct {
		facts   []events.Payload
		outcome events.Outcome // empty: not closed
		reason  string
	}{
		"not planned":                          {},
		"nobody at all":                        {facts: []events.Payload{planned(nil, nil)}, outcome: events.OutcomeFailed, reason: events.ReasonNoTarget},
		"everybody left out":                   {facts: []events.Payload{planned(nil, nil, "a")}, outcome: events.OutcomeFailed},
		"not dispatched":                       {facts: []events.Payload{planned(l("a"), nil), ok("a")}},
		"silent":                               {facts: []events.Payload{planned(l("a"), nil), out}},
		"one of two":                           {facts: []events.Payload{planned(l("a", "b"), nil), out, ok("a")}},
		"all well":                             {facts: []events.Payload{planned(l("a", "b"), nil), out, ok("a"), ok("b")}, outcome: events.OutcomeSucceeded},
		"answers before the wave is known out": {facts: []events.Payload{planned(l("a"), nil), ok("a"), out}, outcome: events.OutcomeSucceeded},
		"some well":                            {facts: []events.Payload{planned(l("a", "b"), nil), out, ok("a"), bad("b")}, outcome: events.OutcomePartial},
		"none well":                            {facts: []events.Payload{planned(l("a", "b"), nil), out, bad("a"), bad("b")}, outcome: events.OutcomeFailed},
		"does not wait for the waiting":        {facts: []events.Payload{planned(l("a"), l("w")), out, ok("a")}, outcome: events.OutcomeSucceeded},
		"waiting failures do not count":        {facts: []events.Payload{planned(l("a"), l("w")), out, bad("w"), ok("a")}, outcome: events.OutcomeSucceeded},
		"only waiting, silent":                 {facts: []events.Payload{planned(nil, l("w")), out}},
		"only waiting, answered":               {facts: []events.Payload{planned(nil, l("w")), out, ok("w")}, outcome: events.OutcomeSucceeded},
		"only waiting, an unplanned one runs":  {facts: []events.Payload{planned(nil, l("w")), out, ok("w"), events.RunStarted{Run: run("u")}}},
		"a planned skip does not count":        {facts: []events.Payload{planned(l("a"), nil, "s"), out, ok("a")}, outcome: events.OutcomeSucceeded},
		"closed is closed":                     {facts: []events.Payload{planned(l("a"), nil), out, ok("a"), events.ExecClosed{ExecID: "x", Outcome: events.OutcomeSucceeded}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			h.add(events.ExecRequested{ExecID: "x"})
			h.add(c.facts...)
			closed, ok := domain.Close(h.state.Execs["x"])
			require.Equal(t, c.outcome != "", ok)
			require.Equal(t, c.outcome, closed.Outcome)
			require.Equal(t, c.reason, closed.Reason)
		})
	}
}

func TestSeen(t *testing.T) {
	h := newHistory(t)
	beat := wire.Heartbeat{PCID: "pc", AgentVersion: "1.0.0", Hostname: "h", OSFamily: "linux"}
	fact, expected, ok := h.state.Fleet.Seen(beat)
	require.True(t, ok)
	require.Zero(t, expected)
	h.add(fact)
	_, _, ok = h.state.Fleet.Seen(beat)
	require.False(t, ok, "the log knows")
	h.add(events.AgentGrouped{PCID: "pc", Groups: []string{"g"}})
	for _, change := range []func(*wire.Heartbeat){
		func(b *wire.Heartbeat) { b.AgentVersion = "1.0.1" }, func(b *wire.Heartbeat) { b.Hostname = "i" }, func(b *wire.Heartbeat) { b.OSFamily = "macos" },
	} {
		b := beat
		change(&b)
		_, expected, ok = h.state.Fleet.Seen(b)
		require.True(t, ok)
		require.Equal(t, uint64(2), expected)
	}
	for _, id := range []string{"", "a b", "-a", "a.", "a*"} {
		b := beat
		b.PCID = id
		_, _, ok = h.state.Fleet.Seen(b)
		require.False(t, ok, id)
	}
	h.add(events.AgentGrouped{PCID: "early", Groups: []string{"g"}})
	_, expected, ok = h.state.Fleet.Seen(wire.Heartbeat{PCID: "early"})
	require.True(t, ok, "groups do not make it known")
	require.Equal(t, uint64(3), expected)
}

// A heartbeat that came late does not make an endpoint older, nor one of the future younger than it is.
func TestHeard(t *testing.T) {
	h := newHistory(t)
	h.state.Heard("pc", start, start)
	h.state.Heard("pc", start.Add(-time.Hour), start)
	e := h.state.Fleet["pc"]
	require.True(t, e.Alive(start.Add(events.AliveFor)))
	require.False(t, e.Alive(start.Add(events.AliveFor+1)))
	require.False(t, (&domain.Endpoint{}).Alive(start))
}

func BenchmarkFold(b *testing.B) {
	pcs := names(1000)
	var facts []events.Event
	add := func(p events.Payload) {
		e, err := events.New(p, events.Meta{ID: "1"})
		require.NoError(b, err)
		facts = append(facts, e)
	}
	add(events.ExecRequested{ExecID: "x"})
	add(events.ExecPlanned{ExecID: "x", Waves: []events.PlannedWave{{Expected: pcs}}})
	add(events.WaveDispatched{ExecID: "x"})
	for _, id := range pcs {
		r := events.Run{PCID: id, ExecID: "x", RequestID: "r", ResultID: id}
		add(events.RunReceived{Run: r})
		add(events.RunStarted{Run: r})
		add(events.RunFinished{Run: r, State: events.StateSucceeded, Stdout: events.Output{Text: fmt.Sprint("hello ", id)}})
	}
	facts = slices.Clip(facts)
	n := 0
	for b.Loop() {
		s := domain.New(retain)
		for i, e := range facts {
			if err := s.Apply(e, uint64(i)+1, start); err != nil {
				b.Fatal(err)
			}
		}
		n += len(facts)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "facts/s")
}
