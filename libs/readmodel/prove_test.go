package readmodel

import (
	"context"
	"flag"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
)

// setFlag sets a flag of rapid for one test.
func setFlag(t *testing.T, name, value string) {
	t.Helper()
	before := flag.Lookup(name).Value.String()
	require.NoError(t, flag.Set(name, value))
	t.Cleanup(func() { require.NoError(t, flag.Set(name, before)) })
}

// extent sets how many cases rapid checks, more of them with KANADE_PROVE=full and a tenth with -short, and from which seed
// on, which it gives: KANADE_SEED, or one of the clock.
func extent(t *testing.T, otherwise, full int) (seed string) {
	cases := otherwise
	switch {
	case os.Getenv("KANADE_PROVE") == "full":
		cases = full
	case testing.Short():
		cases = otherwise / 10
	}
	if seed = os.Getenv("KANADE_SEED"); seed == "" {
		seed = strconv.FormatInt(time.Now().UnixNano(), 10)
	}
	setFlag(t, "rapid.checks", strconv.Itoa(cases))
	setFlag(t, "rapid.seed", seed)
	t.Logf("seed %s", seed)
	return seed
}

// However a log falls into batches, wherever the projector is restarted, and whatever it is given again, the rows are
// those of one clean pass, bit for bit; the totals always equal a count of the targets, and the targets a fold of the log
// that knows nothing of rows. KANADE_PROVE=full checks 10 000 logs; KANADE_SEED repeats a run.
func TestProveConvergence(t *testing.T) {
	seed := extent(t, 300, 10_000)
	var logs, messages, batches, restarts, poison int
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t)
		clean, cleanPoison := project(t, log, func(int) (int, int, bool) { return len(log), 0, false })
		torn, tornPoison := project(t, log, func(at int) (int, int, bool) {
			size := rapid.IntRange(1, 6).Draw(t, "batch")
			again := rapid.SampledFrom([]int{0, 0, 0, 1, 5, 100}).Draw(t, "again")
			restart := rapid.IntRange(0, 3).Draw(t, "restart") == 0
			batches++
			if restart {
				restarts++
			}
			return size, again, restart
		})
		if !maps.Equal(clean, torn) {
			t.Fatalf("rows differ:\n%v\n%v", clean, torn)
		}
		if cleanPoison != tornPoison {
			t.Fatalf("%d messages were poison in a clean pass, %d with restarts", cleanPoison, tornPoison)
		}
		logs, messages, poison = logs+1, messages+len(log), poison+cleanPoison
	})
	t.Logf("PROVED TestProveConvergence: %d logs, %d messages, %d batches, %d restarts, %d poison, seed %s", logs, messages, batches, restarts, poison, seed)
}

// project applies a log in steps: how many messages from at on, how many of those before at once more, and whether the
// writer is closed and opened first.
func project(t *rapid.T, log []Message, next func(at int) (size, again int, restart bool)) (digest map[string]string, poison int) {
	dir, err := os.MkdirTemp("", "readmodel")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	w, err := OpenWriter(context.Background(), dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	for at := 0; at < len(log); {
		size, again, restart := next(at)
		if restart {
			_, err := w.WriteWords(context.Background()) // what is made beside the rows does not touch them
			require.NoError(t, err)
			require.NoError(t, w.Close())
			w, err = OpenWriter(context.Background(), dir)
			require.NoError(t, err)
		}
		to := min(at+size, len(log))
		parked, err := w.Apply(context.Background(), events.StreamLog, log[max(0, at-again):to])
		require.NoError(t, err)
		poison, at = poison+len(parked), to
		checkTotals(t, w)
	}
	checkTargets(t, w, log)
	digest, err = w.Digest(context.Background())
	require.NoError(t, err)
	return digest, poison
}

// checkTotals compares the totals with the targets that they count, as long as those are there.
func checkTotals(t require.TestingT, w *Writer) {
	var wrong int
	err := w.db.conn.QueryRowContext(context.Background(), `
		WITH counted AS (
			SELECT exec_id, CASE expected WHEN 1 THEN 'expected' ELSE 'others' END AS side, state, COUNT(*) AS n FROM targets GROUP BY 1, 2, 3),
		kept AS (
			SELECT exec_id, side.key AS side, of.key AS state, of.value AS n
			FROM target_totals, json_each(totals) AS side, json_each(side.value) AS of WHERE target_totals.kept = 1)
		SELECT (SELECT COUNT(*) FROM (SELECT * FROM counted EXCEPT SELECT * FROM kept))
		     + (SELECT COUNT(*) FROM (SELECT * FROM kept EXCEPT SELECT * FROM counted))
		     + (SELECT COUNT(*) FROM target_totals t WHERE heard <> (SELECT COUNT(*) FROM targets x WHERE x.exec_id = t.exec_id AND result_id <> ''))`,
	).Scan(&wrong)
	require.NoError(t, err)
	require.Zero(t, wrong, "totals that are no count of the targets")
	err = w.db.conn.QueryRowContext(context.Background(), `
		WITH counted AS (SELECT job_id, state, COUNT(*) FROM results GROUP BY 1, 2)
		SELECT (SELECT COUNT(*) FROM (SELECT * FROM counted EXCEPT SELECT * FROM result_counts))
		     + (SELECT COUNT(*) FROM (SELECT * FROM result_counts EXCEPT SELECT * FROM counted))`,
	).Scan(&wrong)
	require.NoError(t, err)
	require.Zero(t, wrong, "counts that are no count of the results")
}

// checkTargets compares the targets with foldTargets of the whole log.
func checkTargets(t require.TestingT, w *Writer, log []Message) {
	found, err := w.db.conn.QueryContext(context.Background(), targets.all())
	require.NoError(t, err)
	defer found.Close()
	have := map[[2]string]events.Target{}
	for found.Next() {
		var row targetRow
		require.NoError(t, found.Scan(row.fields()...))
		have[[2]string{row.execID, row.PCID}] = row.Target.Target
	}
	require.NoError(t, found.Err())
	require.Equal(t, foldTargets(log), have)
}

// foldTargets is what a log says of every endpoint in every exec that was requested, message by message over the whole plan.
func foldTargets(log []Message) map[[2]string]events.Target {
	all, plans, asked := map[[2]string]events.Target{}, map[string]events.ExecPlanned{}, map[string]bool{}
	for _, m := range Decode(events.StreamLog, log).messages {
		set := func(exec, pc string, change func(events.Target) (events.Target, bool)) {
			if next, changed := change(all[[2]string{exec, pc}]); changed {
				all[[2]string{exec, pc}] = next
			}
		}
		each := func(exec string, change func(events.Target) (events.Target, bool)) {
			for key := range all {
				if key[0] == exec {
					set(exec, key[1], change)
				}
			}
		}
		stop := func(exec, reason string) {
			each(exec, func(x events.Target) (events.Target, bool) { return x.Stop(reason, m.seq, m.at) })
		}
		if m.run != nil && asked[m.run.ExecID] {
			set(m.run.ExecID, m.run.PCID, func(x events.Target) (events.Target, bool) { return x.Apply(*m.run, m.seq, m.at) })
		}
		switch e := m.payload.(type) {
		case events.ExecRequested:
			asked[e.ExecID] = true
		case events.ExecPlanned:
			if _, again := plans[e.ExecID]; again || !asked[e.ExecID] {
				continue
			}
			plans[e.ExecID] = e
			plan := func(pc string, as events.Target) {
				set(e.ExecID, pc, func(said events.Target) (events.Target, bool) {
					if said.State != "" {
						said.Planned, said.Expected, said.Wave = true, as.Expected, as.Wave
						return said, true
					}
					as.Planned, as.Sequence, as.At = true, m.seq, m.at
					return as, true
				})
			}
			for i, w := range e.Waves {
				for _, pc := range w.Expected {
					plan(pc, events.Target{State: events.StateExpected, Expected: true, Wave: i})
				}
				for _, pc := range w.Waiting {
					plan(pc, events.Target{State: events.StateWaiting, Wave: i})
				}
			}
			for _, s := range e.Skipped {
				plan(s.PCID, events.Target{State: events.StateSkipped, Reason: s.Reason})
			}
		case events.WaveDispatched:
			if e.Wave >= len(plans[e.ExecID].Waves) {
				continue
			}
			w := plans[e.ExecID].Waves[e.Wave]
			part := slices.Concat(w.Expected, w.Waiting)
			if e.To > 0 {
				part = part[e.From:e.To]
			}
			for _, pc := range part {
				set(e.ExecID, pc, func(x events.Target) (events.Target, bool) { return x.Send(m.seq, m.at) })
			}
		case events.ExecHalted:
			stop(e.ExecID, events.SkipReasonHalted)
		case events.ExecCancelled:
			stop(e.ExecID, events.SkipReasonCancelled)
		case events.ExecKilled:
			stop(e.ExecID, events.SkipReasonKilled)
		case events.ExecExpired:
			each(e.ExecID, func(x events.Target) (events.Target, bool) { return x.Expire(m.seq, m.at) })
		}
	}
	return all
}

// long skips a test that takes long where only short ones are asked for, as beside the race detector.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long: run it without -short")
	}
}
