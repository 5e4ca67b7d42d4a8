package domain_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// rollout is an exec "x" of waves with names of endpoints; what begins with "w" is away.
func rollout(h *history, change func(*events.ExecPlanned), waves ...[]string) events.ExecPlanned {
	p := events.ExecPlanned{ExecID: "x", ExpiresAt: start.Add(24 * time.Hour), Waves: []events.PlannedWave{}}
	for _, ids := range waves {
		w := events.PlannedWave{DueAt: start}
		for _, id := range ids {
			if id[0] == 'w' {
				w.Waiting = append(w.Waiting, id)
			} else {
				w.Expected = append(w.Expected, id)
			}
		}
		p.Waves = append(p.Waves, w)
	}
	if change != nil {
		change(&p)
	}
	h.add(events.ExecRequested{ExecID: "x", Plan: []byte(`{"target":{"all":true}}`), Script: events.Script{TimeoutSecs: 30}}, p)
	return p
}

func answer(pc string, state events.TargetState) events.RunFinished {
	return events.RunFinished{Run: events.Run{PCID: pc, ExecID: "x", ResultID: pc}, State: state}
}

func TestAdvance(t *testing.T) {
	l := func(ids ...string) []string { return ids }
	one, two, most := 1, 2, math.MaxInt
	out := func(wave int) []events.Payload {
		return []events.Payload{events.WaveReleased{ExecID: "x", Wave: wave}, events.WaveDispatched{ExecID: "x", Wave: wave}}
	}
	after := func(delay uint64) func(*events.ExecPlanned) {
		return func(p *events.ExecPlanned) { p.Waves[1].After, p.Waves[1].DelaySecs = true, delay }
	}
	for name, c := range map[string]struct {
		waves  [][]string
		change func(*events.ExecPlanned)
		facts  []events.Payload
		passed time.Duration // since the last fact
		want   string        // waves that may go out, then when to look again, or "halt"
	}{
		"one wave at once":                  {waves: [][]string{l("a")}, want: "0"},
		"nobody":                            {waves: nil, want: ""},
		"both at once":                      {waves: [][]string{l("a"), l("b")}, want: "0 1"},
		"one is out":                        {waves: [][]string{l("a"), l("b")}, facts: out(0), want: "1"},
		"released, not yet dispatched":      {waves: [][]string{l("a")}, facts: out(0)[:1], want: ""},
		"only endpoints that are away":      {waves: [][]string{l("w")}, want: "0"},
		"a wave of nobody is passed over":   {waves: [][]string{l(), l("b")}, want: "1"},
		"a delay that has not passed":       {waves: [][]string{l("a"), l("b")}, change: func(p *events.ExecPlanned) { p.Waves[1].DueAt = start.Add(time.Hour) }, want: "0 at 01:00:00"},
		"a delay that has":                  {waves: [][]string{l("a"), l("b")}, change: func(p *events.ExecPlanned) { p.Waves[1].DueAt = start.Add(time.Hour) }, facts: out(0), passed: 2 * time.Hour, want: "1"},
		"after one that is not out":         {waves: [][]string{l("a"), l("b")}, change: after(0), want: "0"},
		"after one that is silent":          {waves: [][]string{l("a"), l("b")}, change: after(60), facts: out(0), want: "at 00:02:34"},
		"after one that stays silent":       {waves: [][]string{l("a"), l("b")}, change: after(60), facts: out(0), passed: time.Hour, want: "1"},
		"after one that has answered":       {waves: [][]string{l("a"), l("b")}, change: after(60), facts: append(out(0), answer("a", events.StateSucceeded)), want: "at 00:01:05"},
		"after one whose soak is over":      {waves: [][]string{l("a"), l("b")}, change: after(60), facts: append(out(0), answer("a", events.StateFailed)), passed: time.Minute, want: "1"},
		"after one of nobody":               {waves: [][]string{l(), l("b")}, change: after(60), want: "at 00:01:00"},
		"after one that only waits":         {waves: [][]string{l("w"), l("b")}, change: after(0), facts: out(0), want: "1"},
		"a pause":                           {waves: [][]string{l("a"), l("b")}, change: func(p *events.ExecPlanned) { p.Waves[1].Pause = true }, facts: out(0), passed: time.Hour, want: ""},
		"a pause that is over":              {waves: [][]string{l("a"), l("b")}, change: func(p *events.ExecPlanned) { p.Waves[1].Pause = true }, facts: append(out(0), events.WaveAdvanced{ExecID: "x", Wave: 1}), want: "1"},
		"advanced before its time":          {waves: [][]string{l("a")}, change: func(p *events.ExecPlanned) { p.Waves[0].DueAt = start.Add(time.Hour) }, facts: []events.Payload{events.WaveAdvanced{ExecID: "x"}}, want: "0"},
		"paused":                            {waves: [][]string{l("a")}, facts: []events.Payload{events.ExecPaused{ExecID: "x"}}, want: ""},
		"paused, and one advanced":          {waves: [][]string{l("a"), l("b")}, facts: []events.Payload{events.ExecPaused{ExecID: "x"}, events.WaveAdvanced{ExecID: "x", Wave: 1}}, want: "1"},
		"resumed":                           {waves: [][]string{l("a")}, facts: []events.Payload{events.ExecPaused{ExecID: "x"}, events.ExecResumed{ExecID: "x"}}, want: "0"},
		"killed":                            {waves: [][]string{l("a")}, facts: []events.Payload{events.ExecKilled{ExecID: "x"}}, want: ""},
		"cancelled":                         {waves: [][]string{l("a")}, facts: []events.Payload{events.ExecCancelled{ExecID: "x"}}, want: ""},
		"failures within the budget":        {waves: [][]string{l("a", "b"), l("c")}, change: func(p *events.ExecPlanned) { p.MaxFailures = &one }, facts: append(out(0), answer("a", events.StateFailed)), want: "1"},
		"failures beyond it":                {waves: [][]string{l("a", "b"), l("c")}, change: func(p *events.ExecPlanned) { p.MaxFailures = &one }, facts: append(out(0), answer("a", events.StateTimedOut), answer("b", events.StateUnknown)), want: "halt"},
		"skips are no failures":             {waves: [][]string{l("a", "b"), l("c")}, change: func(p *events.ExecPlanned) { p.MaxFailures = new(int) }, facts: append(out(0), answer("a", events.StateSkipped)), want: "1"},
		"nothing to call off":               {waves: [][]string{l("a")}, change: func(p *events.ExecPlanned) { p.MaxFailures = new(int) }, facts: append(out(0), answer("a", events.StateFailed)), want: ""},
		"two places":                        {waves: [][]string{l("a", "b", "c")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &two }, want: "0[0,2)"},
		"places over two waves":             {waves: [][]string{l("a"), l("b", "c")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &two }, want: "0[0,1) 1[0,1)"},
		"the last place":                    {waves: [][]string{l("a", "b")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &one }, facts: []events.Payload{events.WaveReleased{ExecID: "x", To: 1}, events.WaveDispatched{ExecID: "x", To: 1}, answer("a", events.StateSucceeded)}, want: "0[1,2)"},
		"as many places as can be":          {waves: [][]string{l("a", "b")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &most }, facts: []events.Payload{events.WaveReleased{ExecID: "x", To: 1}, events.WaveDispatched{ExecID: "x", To: 1}, answer("a", events.StateSucceeded)}, want: "0[1,2)"},
		"a failure keeps its place":         {waves: [][]string{l("a", "b", "c")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &two }, facts: []events.Payload{events.WaveReleased{ExecID: "x", To: 1}, events.WaveDispatched{ExecID: "x", To: 1}, answer("a", events.StateFailed)}, want: "0[1,2)"},
		"no place is left":                  {waves: [][]string{l("a", "b")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &one }, facts: []events.Payload{events.WaveReleased{ExecID: "x", To: 1}, events.WaveDispatched{ExecID: "x", To: 1}, answer("a", events.StateFailed)}, want: "halt"},
		"who is away waits for its place":   {waves: [][]string{l("a", "w")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &two }, want: "0[0,1)"},
		"who is away gets it last":          {waves: [][]string{l("a", "w")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &two }, facts: []events.Payload{events.WaveReleased{ExecID: "x", To: 1}, events.WaveDispatched{ExecID: "x", To: 1}, answer("a", events.StateSucceeded), events.ExecClosed{ExecID: "x", Outcome: events.OutcomeSucceeded}}, want: "0[1,2)"},
		"away and nobody else, in parts":    {waves: [][]string{l("w")}, change: func(p *events.ExecPlanned) { p.MaxParallel = &one }, want: "0[0,1)"},
		"what is out does not go out again": {waves: [][]string{l("a")}, facts: append(out(0), answer("a", events.StateSucceeded)), passed: time.Hour, want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			rollout(h, c.change, c.waves...)
			h.add(c.facts...)
			next := domain.Advance(h.state.Execs["x"], h.now.Add(c.passed))
			got := ""
			for _, r := range next.Releases {
				if got += fmt.Sprintf(" %d", r.Wave); r.To > 0 {
					got += fmt.Sprintf("[%d,%d)", r.From, r.To)
				}
			}
			if !next.LookAt.IsZero() {
				got += next.LookAt.Format(" at 15:04:05")
			}
			if next.Halt != nil {
				got += " halt"
			}
			if got != "" {
				got = got[1:]
			}
			require.Equal(t, c.want, got)
		})
	}
}

// Whatever endpoints do, and in which order: each gets its command at most once, with a budget those in flight and those
// that failed are never more than it, and in the end everybody has his command, or the exec has halted.
func TestBudgetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		var waves [][]string
		for i := range rapid.IntRange(1, 4).Draw(t, "waves") {
			var ids []string
			for k := range rapid.IntRange(0, 5).Draw(t, "endpoints") {
				ids = append(ids, fmt.Sprintf("%s%d-%d", rapid.SampledFrom([]string{"e", "e", "w"}).Draw(t, "is"), i, k))
			}
			waves = append(waves, ids)
		}
		budget := rapid.IntRange(1, 4).Draw(t, "budget")
		p := rollout(h, func(p *events.ExecPlanned) {
			p.MaxParallel = &budget
			for i := range p.Waves {
				p.Waves[i].After = i > 0 && rapid.Bool().Draw(t, "after")
			}
		}, waves...)
		inFlight, failed, had := []string{}, 0, map[string]bool{}
		for step := 0; ; step++ {
			x := h.state.Execs["x"]
			if closed, ok := domain.Close(x); ok {
				h.add(closed)
			}
			next := domain.Advance(x, h.now.Add(time.Duration(step)*time.Hour))
			if next.Halt != nil {
				require.GreaterOrEqual(t, failed, budget)
				return
			}
			if len(next.Releases) == 0 && len(inFlight) == 0 {
				break
			}
			if len(next.Releases) > 0 && (len(inFlight) == 0 || rapid.Bool().Draw(t, "release")) {
				r := next.Releases[0]
				h.add(events.WaveReleased{ExecID: "x", Wave: r.Wave, From: r.From, To: r.To}, events.WaveDispatched{ExecID: "x", Wave: r.Wave, From: r.From, To: r.To})
				for _, pc := range slices.Concat(p.Waves[r.Wave].Expected, p.Waves[r.Wave].Waiting)[r.From:r.To] {
					require.False(t, had[pc], pc)
					had[pc], inFlight = true, append(inFlight, pc)
				}
				require.LessOrEqual(t, len(inFlight)+failed, budget)
				continue
			}
			i := rapid.IntRange(0, len(inFlight)-1).Draw(t, "answers")
			state := rapid.SampledFrom([]events.TargetState{events.StateSucceeded, events.StateSucceeded, events.StateFailed, events.StateSkipped}).Draw(t, "state")
			if state == events.StateFailed {
				failed++
			}
			h.add(answer(inFlight[i], state))
			inFlight = slices.Delete(inFlight, i, i+1)
			if rapid.IntRange(0, 9).Draw(t, "reload") == 0 {
				h.reload()
			}
		}
		for _, ids := range waves {
			for _, pc := range ids {
				require.True(t, had[pc], pc)
			}
		}
	})
}

// A part that does not fit its wave is what it has in common with it, one of a wave that the plan does not have, or of one
// that does not go out in parts, is nobody: so the read model counts, and a recount.
func TestWaveDispatchedWithABadPart(t *testing.T) {
	l := func(ids ...string) []string { return ids }
	for name, c := range map[string]struct {
		whole          bool // the plan makes no parts
		wave, from, to int
		sent           []string
		out            int // of wave 0
	}{
		"fits":                         {from: 1, to: 2, sent: l("b"), out: 2},
		"the whole":                    {sent: l("a", "b", "c"), out: 3},
		"ends before it begins":        {from: 2, to: 1},
		"empty":                        {from: 1, to: 1},
		"ends beyond the wave":         {from: 1, to: 4, sent: l("b", "c"), out: 3},
		"begins beyond the wave":       {from: 4, to: 5},
		"begins before the wave":       {from: -1, to: 2, sent: l("a", "b"), out: 2},
		"ends before the wave":         {from: -2, to: -1},
		"begins, and has no end":       {from: 2},
		"as far apart as can be":       {from: math.MinInt, to: math.MaxInt, sent: l("a", "b", "c"), out: 3},
		"the other way round":          {from: math.MaxInt, to: math.MinInt},
		"of a wave that is not there":  {wave: 2, to: 1},
		"of the last possible wave":    {wave: math.MaxInt, to: 1},
		"of a wave before the first":   {wave: -1, to: 1},
		"all of a wave before that":    {wave: math.MinInt},
		"where there are no parts":     {whole: true, from: 1, to: 2, out: 2},
		"the whole, without parts":     {whole: true, sent: l("a", "b", "c"), out: 3},
		"a bad one, without parts":     {whole: true, from: 2, to: 1},
		"no such wave, without parts":  {whole: true, wave: 2},
		"beyond a wave, without parts": {whole: true, from: 1, to: 4, out: 3},
	} {
		t.Run(name, func(t *testing.T) {
			h, r, three := newHistory(t), &domain.Recount{}, 3
			p := rollout(h, func(p *events.ExecPlanned) {
				if !c.whole {
					p.MaxParallel = &three
				}
			}, l("a", "b", "c"), l("d"))
			r.Apply(p, h.seq, h.now)
			fact := events.WaveDispatched{ExecID: "x", Wave: c.wave, From: c.from, To: c.to}
			h.add(fact)
			r.Apply(fact, h.seq, h.now)
			x := h.state.Execs["x"]
			var sent []string
			for _, pc := range l("a", "b", "c", "d") {
				if x.Targets[pc].State == events.StateSent {
					sent = append(sent, pc)
				}
			}
			require.Equal(t, c.sent, sent)
			require.Equal(t, []int{c.out, c.out}, []int{x.Waves[0].Released, x.Waves[0].Dispatched})
			require.Zero(t, x.Waves[1].Dispatched)
			require.Equal(t, clean(x.Totals), clean(r.Totals()))
			h.reload()
			domain.Advance(h.state.Execs["x"], h.now)
		})
	}
}

// Whatever numbers the facts of waves and the plan's budgets hold: what goes out next is in the plan, and a part goes out
// behind what is out.
func TestWavesOfAnyNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		budget := rapid.SampledFrom([]*int{nil, new(-1), new(0), new(1), new(2), new(3), new(math.MinInt), new(math.MaxInt)})
		p := rollout(h, func(p *events.ExecPlanned) {
			p.MaxParallel, p.MaxFailures = budget.Draw(t, "parallel"), budget.Draw(t, "failures")
			p.Waves[1].After = rapid.Bool().Draw(t, "after")
			p.Waves[1].Pause = rapid.Bool().Draw(t, "pause")
		}, []string{"a", "b", "w"}, []string{"c", "d"})
		for range rapid.IntRange(0, 20).Draw(t, "facts") {
			out := []int{h.state.Execs["x"].Waves[0].Released, h.state.Execs["x"].Waves[1].Released}
			if rapid.Bool().Draw(t, "of a wave") {
				h.add(waveFact(t, "x"))
			} else {
				h.add(runFact(t, []string{"x"}, []string{"a", "b", "w", "c", "d"}))
			}
			x := h.state.Execs["x"]
			for i, w := range x.Waves {
				require.LessOrEqual(t, out[i], w.Released)
				require.LessOrEqual(t, w.Dispatched, w.Released)
				require.LessOrEqual(t, w.Released, w.Size)
			}
			for _, r := range domain.Advance(x, h.now.Add(time.Hour)).Releases {
				_, fits := fanout.Part(p, events.WaveReleased{Wave: r.Wave, From: r.From, To: r.To})
				require.True(t, fits, r)
				if p.MaxParallel != nil {
					require.Equal(t, x.Waves[r.Wave].Released, r.From)
					require.Less(t, r.From, r.To)
				}
				x.Late(r.Wave, h.now, retain.History)
			}
			domain.Close(x)
			domain.Expire(x, h.now)
		}
	})
}

// Of several plans of an exec, which nobody writes, the first one counts.
func TestSecondPlanChangesNothing(t *testing.T) {
	h := newHistory(t)
	p := rollout(h, func(*events.ExecPlanned) {}, []string{"a", "b"})
	h.add(events.WaveReleased{ExecID: "x"}, events.WaveDispatched{ExecID: "x"}, answer("a", events.StateSucceeded))
	before := clean(h.state.Execs["x"].Totals)
	p.Waves = []events.PlannedWave{{DueAt: h.now, Expected: []string{"a", "b", "c"}}}
	h.add(p)
	x := h.state.Execs["x"]
	require.Equal(t, before, clean(x.Totals))
	require.Equal(t, events.StateSucceeded, x.Targets["a"].State)
	require.Equal(t, []int{1, 2, 2}, []int{len(x.Waves), x.Waves[0].Size, x.Waves[0].Dispatched})
}

// Endpoints that were away count for max_failures when they come back and fail.
func TestFailuresOfWhoWasAwayHalt(t *testing.T) {
	h := newHistory(t)
	one := 1
	rollout(h, func(p *events.ExecPlanned) { p.MaxFailures = &one; p.Waves[1].Pause = true }, []string{"a", "w1", "w2"}, []string{"c"})
	h.add(events.WaveReleased{ExecID: "x"}, events.WaveDispatched{ExecID: "x"}, answer("a", events.StateSucceeded), answer("w1", events.StateFailed))
	require.Nil(t, domain.Advance(h.state.Execs["x"], h.now).Halt)
	h.add(answer("w2", events.StateTimedOut))
	halt := domain.Advance(h.state.Execs["x"], h.now).Halt
	require.NotNil(t, halt)
	require.Equal(t, []int{2, 1}, []int{halt.Failed, halt.Allowed})
}

// A wave that goes out at a time for which the plan was not made has as long as any other, and so have those behind it.
func TestLate(t *testing.T) {
	h := newHistory(t)
	rollout(h, func(p *events.ExecPlanned) {
		p.Waves[1].After, p.Waves[1].DelaySecs = true, 3600
		p.ExpiresAt = start.Add(fanout.KeepCommands)
	}, []string{"a"}, []string{"b"})
	x := h.state.Execs["x"]
	late := start.Add(60 * 24 * time.Hour)
	deadline, expires := x.Late(0, late, retain.History)
	require.Equal(t, late.Add(x.Keeps), *deadline)
	require.Equal(t, late.Add(x.Lasts+time.Hour+x.Keeps+x.Lasts), *expires, "the second wave goes out when the first must have ended, and an hour")
	deadline, expires = x.Late(1, late, retain.History)
	require.Equal(t, late.Add(x.Keeps), *deadline)
	require.Equal(t, late.Add(x.Keeps+x.Lasts), *expires)
	x.DeadlineAt = start.Add(x.Keeps)
	deadline, expires = x.Late(1, start.Add(-time.Hour), retain.History)
	require.Nil(t, deadline, "it has longer anyway")
	require.Nil(t, expires, "the exec lasts longer anyway")
	last := x.RequestedAt.Add(61 * 24 * time.Hour)
	deadline, expires = x.Late(0, late, 61*24*time.Hour)
	require.Equal(t, []time.Time{last, last}, []time.Time{*deadline, *expires}, "no exec outlives the history")
	x.ExpiresAt, x.DeadlineAt = last, last
	deadline, expires = x.Late(1, late, 61*24*time.Hour)
	require.Nil(t, deadline)
	require.Nil(t, expires, "it has what there is")
	x.Keeps = 0
	deadline, expires = x.Late(1, late, retain.History)
	require.Nil(t, deadline)
	require.Nil(t, expires, "a deadline is a deadline")
}

func TestStops(t *testing.T) {
	for _, c := range []struct {
		fact    events.Payload
		outcome events.Outcome
		reason  string
	}{
		{events.ExecKilled{ExecID: "x"}, events.OutcomeKilled, events.SkipReasonKilled},
		{events.ExecCancelled{ExecID: "x"}, events.OutcomeCancelled, events.SkipReasonCancelled},
		{events.ExecHalted{ExecID: "x"}, events.OutcomeHalted, events.SkipReasonHalted},
	} {
		h := newHistory(t)
		rollout(h, nil, []string{"a", "b", "w"}, []string{"c"})
		run := events.Run{PCID: "b", ExecID: "x", ResultID: "b"}
		h.add(events.WaveReleased{ExecID: "x"}, events.WaveDispatched{ExecID: "x"}, events.RunStarted{Run: run}, c.fact)
		x := h.state.Execs["x"]
		require.Equal(t, c.outcome, x.Outcome)
		for _, pc := range []string{"a", "w", "c"} {
			require.Equal(t, events.StateSkipped, x.Targets[pc].State)
			require.Equal(t, c.reason, x.Targets[pc].Reason)
		}
		_, ok := domain.Close(x)
		require.False(t, ok, "b still runs")
		h.add(answer("b", events.StateKilled))
		closed, ok := domain.Close(x)
		require.True(t, ok)
		require.Equal(t, c.outcome, closed.Outcome)
		h.add(closed, answer("a", events.StateSucceeded))
		require.Equal(t, events.StateSucceeded, x.Targets["a"].State, "what an endpoint says counts")
		_, ok = domain.Close(x)
		require.False(t, ok, "it has closed")
		h.add(events.ExecKilled{ExecID: "x"})
		require.Equal(t, c.outcome, x.Outcome, "the first end stands")
		clear(h.state.Touched.Kills)
		h.add(events.RunStarted{Run: events.Run{PCID: "c", ExecID: "x", ResultID: "c"}})
		require.Contains(t, h.state.Touched.Kills, "x", "who starts a killed exec is told again")
	}
}
