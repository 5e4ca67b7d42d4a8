package scheduler_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler"
)

// nominalForm is a schedule with due times, and how an independent reckoning knows them: by looking at every step.
type nominalForm struct {
	id, keys string
	step     time.Duration
	due      func(at time.Time) bool
	// closed is why a gate is closed; nil: never. fires: no policy stands against it, each open tick is fired.
	closed func(at time.Time) string
	fires  bool
}

// ledgerForms are schedules of every form with due times.
func ledgerForms(r *rand.Rand, begin time.Time) []nominalForm {
	every := func(d time.Duration) func(time.Time) bool {
		return func(at time.Time) bool { return at.Truncate(d).Equal(at) }
	}
	in := func(zone string, seconds int) *time.Location { return time.FixedZone(zone, seconds) }
	auckland, kolkata := in("Pacific/Auckland", 13*3600), in("Asia/Kolkata", 19800) // of January
	const minutely = "when: {cron: '* * * * *'}\n"
	all := []nominalForm{
		{id: "minute", keys: minutely + "catch_up: all\noverlap: allow\ntarget: {pcs: [pc1]}", step: time.Minute, due: every(time.Minute), fires: true},
		{id: "seconds", keys: "when: {cron: '*/20 * * * * *'}\ncatch_up: all\noverlap: allow\ntarget: {pcs: [pc2]}", step: time.Second, due: every(20 * time.Second), fires: true},
		{id: "last", keys: minutely + "target: {groups: [g]}", step: time.Minute, due: every(time.Minute)},
		{id: "none", keys: minutely + "catch_up: none\noverlap: allow\ntarget: {all: true}", step: time.Minute, due: every(time.Minute)},
		{id: "skip", keys: minutely + "overlap: skip\ntarget: {pcs: [slow]}", step: time.Minute, due: every(time.Minute)},
		{id: "queue", keys: minutely + "overlap: queue\ntarget: {pcs: [slow]}", step: time.Minute, due: every(time.Minute)},
		{id: "replace", keys: "when: {cron: '*/3 * * * *'}\noverlap: replace\ntarget: {pcs: [slow, pc1]}", step: time.Minute, due: every(3 * time.Minute)},
		{id: "limit", keys: minutely + "overlap: allow\ntarget: {pcs: [slow]}\nconstraints: {max_concurrent: 1}", step: time.Minute, due: every(time.Minute)},
		{id: "quarter", keys: "when: {cron: '*/15 * * * *'}\noverlap: allow\ntarget: {pcs: [flaky]}\ntz: Asia/Kolkata", step: time.Minute, due: every(15 * time.Minute), fires: true},
		{
			id: "window", keys: minutely + "overlap: allow\ncatch_up: all\ntarget: {pcs: [pc1]}\ntz: Asia/Kolkata\nconstraints: {window: '16:20-16:40'}", step: time.Minute,
			due: every(time.Minute), fires: true, closed: func(at time.Time) string {
				if c := at.In(kolkata); c.Hour() == 16 && c.Minute() >= 20 && c.Minute() < 40 {
					return ""
				}
				return events.TickReasonWindow
			},
		},
		{
			id: "skipped", keys: minutely + "overlap: allow\ncatch_up: all\ntarget: {pcs: [pc1]}\ntz: Pacific/Auckland\nconstraints: {skip_dates: [2000-01-02]}", step: time.Minute,
			due: every(time.Minute), fires: true, closed: func(at time.Time) string {
				if at.In(auckland).Day() == 2 {
					return events.TickReasonSkipDate
				}
				return ""
			},
		},
		{
			id: "allowed", keys: "when: {cron: '*/2 * * * *'}\noverlap: allow\ncatch_up: all\ntarget: {pcs: [pc1]}\ntz: Pacific/Auckland\ncalendars: [patches]", step: time.Minute,
			due: every(2 * time.Minute), fires: true, closed: func(at time.Time) string {
				if at.In(auckland).Day() != 2 {
					return events.TickReasonCalendar
				}
				return ""
			},
		},
		{
			id: "active", keys: minutely + "overlap: allow\ncatch_up: all\ntarget: {pcs: [pc2]}\nactive: {from: '2000-01-01T10:50:30Z', until: '2000-01-01T11:05:00Z'}", step: time.Minute,
			due: func(at time.Time) bool {
				return at.Day() == 1 && at.Sub(begin) > 5*time.Minute+20*time.Second && at.Sub(begin) < 19*time.Minute+50*time.Second
			}, fires: true,
		},
	}
	for i := range 12 { // times of day, on their own wall clocks
		loc := []*time.Location{time.UTC, kolkata, auckland}[i%3]
		c := begin.Add(time.Duration(3+r.IntN(24*60)) * time.Minute)
		if i < 8 {
			c = begin.Add(time.Duration(3+r.IntN(30)) * time.Minute)
		}
		c = c.In(loc)
		all = append(all, nominalForm{
			id: fmt.Sprintf("daily-%02d", i), keys: fmt.Sprintf("when: {calendar: {at: '%s'}}\ntz: %s\ntarget: {all: true}\noverlap: allow", c.Format("15:04"), map[bool]string{true: "utc", false: loc.String()}[i%3 == 0]),
			step: time.Minute, fires: true, due: func(at time.Time) bool { return at.In(loc).Format("15:04") == c.Format("15:04") },
		})
	}
	return all
}

// TestProveLedger lets schedules of every form run while two schedulers race, of which one dies every ten seconds at a random
// moment, sometimes both, and the broker restarts every hour. Each nominal tick that an independent reckoning expects is
// in the ledger once, each that fired has one exec, which no endpoint runs twice, gates close with their reasons, and
// intervals are held. It is 24 hours with KANADE_PROVE=full. A scheduler dies as its connection goes: whatever it was about
// is not done, and it can neither save nor say anything; TestProveKillAnyService does the same to processes.
func TestProveLedger(t *testing.T) {
	long(t)
	minutes, seed := proof(t, 24*60, 25)
	var summary string
	synctest.Test(t, func(t *testing.T) { summary = ledgerUnderKills(t, time.Duration(minutes)*time.Minute, seed) })
	if !t.Failed() {
		t.Logf("PROVED %s: %s, seed %d", t.Name(), summary, seed)
	}
}

func ledgerUnderKills(t *testing.T, extent time.Duration, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 3))
	at(t, "2000-01-01 10:45:10")
	begin := time.Now()
	w := newWorld(t)
	fleet := w.ledgerFleet(seed)
	w.job("job", "1")
	w.calendar("patches", "allow", "2000-01-02")
	forms := ledgerForms(r, begin)
	saved := map[string]time.Time{}
	for _, f := range forms {
		w.schedule(f.id, f.keys)
		saved[f.id] = time.Now()
	}
	everybody := []string{"pc1", "pc2", "flaky", "slow"}
	cadences := []cadence{
		{id: "rounds", every: 7 * time.Minute, members: everybody},
		{id: "once", members: everybody},
		{id: "whole", every: 4 * time.Minute, whole: true},
		{
			id: "nightly", every: 5 * time.Minute, members: []string{"pc1", "flaky"},
			open: func(at time.Time) bool {
				return at.Hour() == 10 && at.Minute() >= 50 || at.Hour() == 11 && at.Minute() < 2
			},
		},
	}
	for id, keys := range map[string]string{
		"rounds": "when: {per_pc: {every: 7m}}\ntarget: {all: true}", "once": "when: {per_pc: once}\ntarget: {all: true}",
		"whole":   "when: {per_target: {every: 4m}}\ntarget: {pcs: [pc1, flaky]}",
		"nightly": "when: {per_pc: {every: 5m}}\ntarget: {pcs: [pc1, flaky]}\ntz: utc\nconstraints: {window: '10:50-11:02'}",
	} {
		w.schedule(id, keys)
	}

	kills := w.ledgerTrouble(r, begin.Add(extent))
	for id := range saved {
		w.append(events.ScheduleDeleted{ID: id}) // what its gates have kept out of the ledger is ended at once
	}
	until := time.Now()
	pass(5 * time.Minute)

	c := w.chronicle()
	outcomes, ticks, fires := map[string]int{}, 0, 0
	for _, f := range forms {
		var nominal []time.Time
		for at := saved[f.id].Truncate(f.step); !at.After(until); at = at.Add(f.step) {
			if at.After(saved[f.id]) && f.due(at.UTC()) {
				nominal = append(nominal, at)
			}
		}
		ticks += len(nominal)
		for at, outcome := range c.requireNominal(t, f.id, nominal) {
			outcomes[outcome]++
			if f.closed != nil && f.closed(at) != "" {
				require.Equal(t, "skipped "+f.closed(at), outcome, "%s: %s", f.id, at)
			} else if f.fires && until.Sub(at) > 2*time.Minute {
				require.Contains(t, []string{"fired ", "caught_up "}, outcome, "%s: %s", f.id, at)
			}
		}
	}
	for _, x := range cadences {
		// The broker is away for 20 s and is found after some more.
		x.from, x.slack = saved[forms[len(forms)-1].id], 3*time.Minute
		fires += c.requireCadence(t, x, until)
	}
	runs := 0
	for _, a := range fleet {
		a.mu.Lock()
		for exec, n := range a.execs {
			require.Equal(t, 1, n, "%s ran %s", a.id, exec)
			runs++
		}
		a.mu.Unlock()
	}
	for kind := range map[string]bool{"fired ": true, "skipped overlap": true, "skipped outside_window": true, "skipped skip_date": true, "skipped limit": true} {
		require.NotZero(t, outcomes[kind], "%s: %v", kind, outcomes)
	}
	return fmt.Sprintf("%s, %d schedulers killed, %d restarts of the broker, %d nominal ticks once in the ledger, 0 lost, 0 doubled, %d fires of intervals, %d runs, %v",
		extent, kills.schedulers, kills.brokers, ticks, fires, runs, outcomes)
}

// ledgerFleet are endpoints of which one fails often and one is slow.
func (w *world) ledgerFleet(seed uint64) []*agent {
	return []*agent{
		w.agent("pc1", nil, "g"), w.agent("pc2", nil, "g"), w.agent("slow", slowly(98*time.Second)),
		w.agent("flaky", func(run events.Run) []answer {
			h := fnv.New64a()
			fmt.Fprint(h, seed, run.ExecID)
			if h.Sum64()%3 == 0 {
				return fail(run)
			}
			return succeed(run)
		}),
	}
}

func (w *world) calendar(id, kind, days string) {
	w.t.Helper()
	c, err := catalog.ParseDayCalendar(fmt.Appendf(nil, "id: %s\nkind: %s\ndays: [%s]\n", id, kind, days), catalog.YAML)
	require.NoError(w.t, err)
	doc, err := c.Document()
	require.NoError(w.t, err)
	w.append(events.CalendarSaved{ID: events.CalendarID(id), Calendar: id, DocumentRevision: events.DocumentRevision{Document: doc}})
}

type troubles struct{ schedulers, brokers int }

// ledgerTrouble makes trouble until an instant and leaves one scheduler running.
func (w *world) ledgerTrouble(r *rand.Rand, until time.Time) (n troubles) {
	kill := []func(){w.mortal(), w.mortal()}
	restart := time.Now().Add(15 * time.Minute)
	for time.Now().Before(until) {
		slot := time.Now().Add(10 * time.Second)
		pass(time.Duration(1 + r.Int64N(int64(9*time.Second))))
		victims := []int{r.IntN(2)}
		if r.IntN(10) == 0 {
			victims = []int{0, 1}
		}
		for _, i := range victims {
			kill[i]()
			n.schedulers++
		}
		if time.Now().After(restart) {
			bustest.Restart(w.t, w.broker, time.Duration(1+r.IntN(20))*time.Second)
			restart = restart.Add(time.Hour)
			n.brokers++
		}
		for _, i := range victims {
			kill[i] = w.mortal()
		}
		if wait := time.Until(slot); wait > 0 {
			pass(wait)
		}
	}
	return n
}

// mortal starts a scheduler; what it gives takes its connection away, and it dies of that.
func (w *world) mortal() (kill func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	b, err := bus.Connect(ctx, bus.Config{InProcess: w.broker.InProcess(), Token: w.broker.Token(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(w.t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = scheduler.Run(ctx, scheduler.Config{Workers: 3}, scheduler.Deps{Bus: b, Logger: slog.New(slog.DiscardHandler)}) // what it says as it dies is no matter
	}()
	killed := false
	kill = func() {
		if !killed {
			killed = true
			b.Close()
			cancel()
			<-ended
		}
	}
	w.t.Cleanup(kill)
	return kill
}
