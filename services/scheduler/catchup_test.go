package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/services/scheduler"
)

// proof is how much of a proof is run, a fifth of it with -short, and its seed, which KANADE_SEED repeats.
func proof(t *testing.T, full, short int) (extent int, seed uint64) {
	t.Helper()
	seed, extent = uint64(time.Now().UnixNano()), short
	if text := os.Getenv("KANADE_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "KANADE_SEED")
	}
	switch {
	case os.Getenv("KANADE_PROVE") == "full":
		extent = full
	case testing.Short() && short > 1:
		extent = max(1, short/5)
	}
	t.Logf("seed %d", seed)
	return extent, seed
}

// outage is one schedule of every hour that lives through an outage: its policies, and what they mean.
type outage struct {
	id, keys         string
	catchUp, overlap string
	window           time.Duration // catch_up_window
	deadline         time.Duration // starting_deadline, 0 for none
	opens, closes    time.Duration // the constraint's window, times of day; equal for none
}

// TestProveCatchUp lets scheduler and broker be away for three days, with a schedule for every policy of catching up, every
// policy of overlap, and windows, deadlines and catch-up windows of every kind: what is in the ledger afterwards, and what
// the endpoint has run, is what the words of docs/decisions/0021-schedules.md say. The moments are drawn; KANADE_PROVE=full
// draws 25 times, otherwise a third of the schedules is drawn.
func TestProveCatchUp(t *testing.T) {
	rounds, seed := proof(t, 25, 1)
	var n struct{ schedules, ticks, runs int }
	for round := range rounds {
		synctest.Test(t, func(t *testing.T) { // it is Saturday, 2000-01-01, midnight
			r := rand.New(rand.NewPCG(seed, uint64(round)))
			w := newWorld(t)
			stop := w.run(scheduler.Deps{})
			pc := w.agent("pc1", slowly(9*time.Second))
			w.job("job", "1")
			// Not at a full hour, nor near one of the limits, which are all multiples of half an hour.
			back := time.Date(2000, 1, 4, 6, 0, 20, 0, time.UTC).Add(time.Duration(r.IntN(12))*time.Hour + time.Duration(3+r.IntN(25)+30*r.IntN(2))*time.Minute)
			all := outages(back)
			if rounds == 1 { // a third of them
				r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				all = all[:len(all)/3]
			}
			for _, x := range all {
				w.schedule(x.id, "when: {cron: '0 * * * *'}\ntarget: {all: true}\ntz: utc\n"+x.keys)
			}
			at(t, "2000-01-01 01:30:00")
			stop()
			w.broker.Shutdown()
			time.Sleep(time.Until(back) - time.Duration(r.IntN(5000))*time.Millisecond)
			require.NoError(t, w.broker.Restart())
			for !w.bus.Connected() { // the endpoint hears commands live only
				pass(100 * time.Millisecond)
			}
			w.run(scheduler.Deps{})
			w.beat("pc1", "1.0.0")
			time.Sleep(2 * time.Hour)
			for _, x := range all {
				ticks, runs := w.checkOutage(x, back, pc)
				n.schedules, n.ticks, n.runs = n.schedules+1, n.ticks+ticks, n.runs+runs
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("PROVED %s: %d outages of 3 days, %d schedules, %d ticks, %d runs caught up, seed %d", t.Name(), rounds, n.schedules, n.ticks, n.runs, seed)
}

// outages are schedules of every hour with every combination of policies, for an outage that ends at an instant.
func outages(back time.Time) []outage {
	midnight := back.Truncate(24 * time.Hour)
	clock := func(d time.Duration) time.Duration {
		return (back.Sub(midnight).Truncate(time.Minute) + d + 24*time.Hour) % (24 * time.Hour)
	}
	text := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60) }
	var all []outage
	for _, catchUp := range []string{"none", "last", "all"} {
		for _, overlap := range []string{"skip", "queue", "allow", "replace"} {
			for _, v := range []outage{
				{id: "plain", window: time.Hour},
				{id: "three", window: 3 * time.Hour, keys: "catch_up_window: 3h\n"},
				{id: "days", window: 100 * time.Hour, keys: "catch_up_window: 100h\n"},
				{id: "deadline", window: 6 * time.Hour, deadline: 150 * time.Minute, keys: "catch_up_window: 6h\nstarting_deadline: 150m\n"},
				{id: "open", window: 30 * time.Hour, opens: clock(-150 * time.Minute), closes: clock(4 * time.Hour), keys: "catch_up_window: 30h\n"},
				{id: "closed", window: 30 * time.Hour, opens: clock(-5 * time.Hour), closes: clock(-90 * time.Minute), keys: "catch_up_window: 30h\n"},
			} {
				v.id = fmt.Sprintf("%s-%s-%s", v.id, catchUp, overlap)
				v.keys += fmt.Sprintf("catch_up: %s\noverlap: %s\n", catchUp, overlap)
				if v.opens != v.closes {
					v.keys += fmt.Sprintf("constraints: {window: '%s-%s'}\n", text(v.opens), text(v.closes))
				}
				v.catchUp, v.overlap = catchUp, overlap
				all = append(all, v)
			}
		}
	}
	return all
}

func (x outage) open(at time.Time) bool {
	for opens := at.Truncate(24 * time.Hour).Add(x.opens - 48*time.Hour); x.opens != x.closes; opens = opens.Add(24 * time.Hour) {
		closes := opens.Add((x.closes - x.opens + 24*time.Hour) % (24 * time.Hour))
		if opens.After(at) {
			return false
		}
		if closes.After(at) {
			return true
		}
	}
	return true
}

// wanted is how each tick of the outage ends: those on a closed gate are skipped, those that are too old are missed, and of
// the others the newest is caught up, or each, if the gate is open on return.
func (x outage) wanted(back time.Time) map[time.Time]string {
	want := map[time.Time]string{}
	var left []time.Time
	for at := time.Date(2000, 1, 1, 2, 0, 0, 0, time.UTC); at.Before(back); at = at.Add(time.Hour) {
		late := back.Sub(at)
		switch {
		case !x.open(at):
			want[at] = "skipped outside_window"
		case x.catchUp == "none", late > x.window, x.deadline > 0 && late >= x.deadline:
			want[at] = "missed late"
		default:
			want[at] = "missed superseded"
			left = append(left, at)
		}
	}
	if len(left) > 0 && (x.catchUp == "last" || x.overlap == "replace") { // all of them would kill one another
		left = left[len(left)-1:]
	}
	for i, at := range left {
		switch {
		case !x.open(back):
			want[at] = "missed outside_window"
		case i > 0 && x.overlap == "skip": // the first of them runs
			want[at] = "skipped overlap"
		default:
			want[at] = "caught_up "
		}
	}
	return want
}

// checkOutage compares the ledger with what is wanted, and the endpoint's runs with the ledger.
func (w *world) checkOutage(x outage, back time.Time, pc *agent) (ticks, runs int) {
	w.t.Helper()
	want, seen := x.wanted(back), map[time.Time]string{}
	for _, row := range w.ledger(x.id) {
		count := 0
		for at := row.From; !at.After(row.To); at = at.Add(time.Hour) {
			require.Empty(w.t, seen[at], "%s: %s is twice in the ledger", x.id, at)
			seen[at] = string(row.Outcome) + " " + row.Reason
			count++
		}
		require.Equal(w.t, count, row.Count, x.id)
		if row.Exec == nil {
			continue
		}
		require.Equal(w.t, row.From, row.To)
		require.Equal(w.t, 1, pc.ran(row.Exec.ExecID), "%s: runs of the tick of %s", x.id, row.To)
		if _, out := want[row.To]; out {
			runs++
		}
	}
	for at, outcome := range want {
		require.Equal(w.t, outcome, seen[at], "%s: %s, back at %s", x.id, at, back)
	}
	for at := back.Truncate(time.Hour).Add(time.Hour); at.Before(time.Now().Truncate(time.Hour)); at = at.Add(time.Hour) {
		if x.open(at) {
			require.Contains(w.t, []string{"fired ", "caught_up "}, seen[at], "%s: %s, after the outage", x.id, at)
		}
	}
	return len(want), runs
}

// ran is how often the endpoint was asked for a run of an exec.
func (a *agent) ran(exec string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.execs[exec]
}
