package scheduler_test

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler"
)

const (
	yearPCs       = 1000
	yearSchedules = 200
	// yearBeat is how often an endpoint is there: it says so once, three seconds before a full minute, and so counts as alive
	// at two of them.
	yearBeat    = 6 * time.Hour
	yearCohorts = 6
)

// TestProveYear simulates 200 schedules over 1 000 endpoints: scheduler and broker are real; the endpoints
// are answered for in bulk, and are there for two minutes four times a day. Every nominal tick is in the ledger
// once, every one that fired has its exec, intervals fire on nobody before his time and leave nobody out who is there; the
// log keeps a day of history, and eight of the ledger. Another run of the seed, of six hours, ends in the same ledger. A
// year with KANADE_PROVE=full; otherwise a week.
func TestProveYear(t *testing.T) {
	long(t)
	days, seed := proof(t, 365, 7)
	defer debug.SetGCPercent(debug.SetGCPercent(scheduler.GCPercent)) // as the process has it
	digests, summary := [2]string{}, ""
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t, seed)
		y.live(6 * time.Hour)
		digests[0] = y.told.digest()
	})
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t, seed)
		y.live(6 * time.Hour)
		digests[1] = y.told.digest()
		y.live(time.Duration(days) * day)
		summary = y.check()
	})
	require.Equal(t, digests[0], digests[1], "two runs of one seed")
	if !t.Failed() {
		t.Logf("PROVED %s: %d days, %d schedules, %d endpoints, %s, digest %s of the first hours, seed %d",
			t.Name(), days, yearSchedules, yearPCs, summary, digests[0], seed)
	}
}

// year is a world with many schedules and endpoints.
type year struct {
	*world
	seed         uint64
	told         *chronicle // all that the log said, which keeps it for some days only
	saved, until time.Time
	nominal      []yearForm
	cadences     []cadence
	groups       map[string][]string
}

// yearForm is a schedule with due times on the wall clock of a zone: at a minute of the day, or, every n hours from
// midnight, at a minute of the hour that follows elapsed time.
type yearForm struct {
	id, when string
	zone     *time.Location
	at       int
	days     []time.Weekday
	hours    int
}

func newYear(t *testing.T, seed uint64) *year {
	limits := bustest.Limits()
	limits.History, limits.Ledger = 24*time.Hour, 24*time.Hour // and Slack; what lasts longer is remembered otherwise
	at(t, "2040-01-01 00:10:00")                               // bustest tells why
	w := &world{t: t, broker: bustest.Broker(t), limits: limits, workers: 1}
	w.bus = bustest.Dial(t, w.broker)
	require.NoError(t, w.bus.Ensure(t.Context(), limits))
	y := &year{world: w, seed: seed, told: newChronicle(), groups: map[string][]string{}}
	r := rand.New(rand.NewPCG(seed, 9))
	for i := range yearPCs {
		pc := fmt.Sprintf("pc-%04d", i)
		group := fmt.Sprintf("g%02d", r.IntN(50))
		y.groups[group] = append(y.groups[group], pc)
		w.append(events.AgentGrouped{PCID: pc, Groups: []string{group}})
	}
	w.job("job", "1")
	y.answer()
	w.run(scheduler.Deps{})
	y.save(r)
	return y
}

// save draws the schedules: three of five at a time of day, one of ten a cron of hours, the others intervals.
func (y *year) save(r *rand.Rand) {
	zones := []*time.Location{time.UTC}
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"} {
		zone, err := time.LoadLocation(name)
		require.NoError(y.t, err)
		zones = append(zones, zone)
	}
	few := func() string {
		var pcs []string
		for range 1 + r.IntN(3) {
			pcs = append(pcs, fmt.Sprintf("pc-%04d", r.IntN(yearPCs)))
		}
		return "{pcs: [" + strings.Join(pcs, ",") + "]}"
	}
	for i := range yearSchedules {
		id, zone := fmt.Sprintf("s-%03d", i), zones[r.IntN(len(zones))]
		keys := "\ntz: " + strings.ToLower(zone.String())
		if zone != time.UTC {
			keys = "\ntz: " + zone.String()
		}
		switch kind := r.IntN(10); {
		case kind < 6:
			f := yearForm{id: id, zone: zone, at: r.IntN(24 * 60)}
			days := ""
			if r.IntN(3) == 0 {
				day := time.Weekday(r.IntN(7))
				f.days, days = []time.Weekday{day, (day + 2) % 7}, fmt.Sprintf(", days: ['%d', '%d']", day, (day+2)%7)
			}
			f.when = fmt.Sprintf("calendar: {at: '%02d:%02d'%s}", f.at/60, f.at%60, days)
			y.nominal = append(y.nominal, f)
			y.schedule(id, "when: {"+f.when+"}\ntarget: "+few()+keys)
		case kind < 7:
			f := yearForm{id: id, zone: zone, at: r.IntN(60), hours: []int{2, 4, 6, 12}[r.IntN(4)]}
			f.when = fmt.Sprintf("cron: '%d */%d * * *'", f.at, f.hours)
			y.nominal = append(y.nominal, f)
			y.schedule(id, "when: {"+f.when+"}\ntarget: "+few()+keys)
		default:
			group := fmt.Sprintf("g%02d", r.IntN(50))
			c := cadence{id: id, members: y.groups[group], every: []time.Duration{24 * time.Hour, 48 * time.Hour, 72 * time.Hour, 168 * time.Hour}[r.IntN(4)]}
			text := fmt.Sprintf("{every: %s}", c.every)
			if r.IntN(8) == 0 {
				c.every, text = 0, "once"
			}
			form := "per_pc"
			if r.IntN(5) == 0 && c.every > 0 {
				c.whole, form = true, "per_target"
				c.members = y.groups[group]
			}
			y.cadences = append(y.cadences, c)
			y.schedule(id, fmt.Sprintf("when: {%s: %s}\ntarget: {groups: [%s]}%s", form, text, group, keys))
		}
	}
	y.saved = time.Now()
}

// answer answers for every endpoint that is there when its command comes: one in ten fails.
func (y *year) answer() {
	_, err := y.bus.Conn().Subscribe(wire.FilterCommands, func(m *nats.Msg) {
		c, err := wire.DecodeCommand(m.Data)
		pc, one := strings.CutPrefix(m.Subject, wire.SubjectCommandPC(""))
		if err != nil || !one {
			y.t.Errorf("command on %s: %v", m.Subject, err)
			return
		}
		if !y.there(pc, time.Now()) {
			return
		}
		run := events.Run{PCID: pc, ExecID: c.ExecID, RequestID: c.RequestID, ResultID: events.ResultID(c.RequestID, pc), JobID: c.ID, Version: c.Version}
		h := fnv.New64a()
		fmt.Fprint(h, y.seed, run.ResultID)
		state := events.StateSucceeded
		if h.Sum64()%10 == 0 {
			state = events.StateFailed
		}
		e, err := events.New(events.RunFinished{Run: run, State: state}, events.Meta{
			ID: events.DeriveID(run.ResultID, "finished"), Source: "/kanade/test", Time: time.Now(), Actor: events.NewActor("agent", pc),
		})
		if err != nil {
			y.t.Error(err)
			return
		}
		go func() {
			if _, err := y.bus.Append(y.t.Context(), e, bus.Any); err != nil {
				y.t.Error(err)
			}
		}()
	})
	require.NoError(y.t, err)
	require.NoError(y.t, y.bus.Conn().Flush())
}

func cohort(pc string) int {
	h := fnv.New32a()
	fmt.Fprint(h, pc)
	return int(h.Sum32() % yearCohorts)
}

// beatBefore is the last heartbeat of a cohort at an instant.
func beatBefore(cohort int, at time.Time) time.Time {
	shift := time.Duration(cohort)*time.Hour + 20*time.Minute + 57*time.Second
	return at.Add(-shift).Truncate(yearBeat).Add(shift)
}

// there tells whether an endpoint counts as alive.
func (y *year) there(pc string, at time.Time) bool {
	beat := beatBefore(cohort(pc), at)
	return !beat.Before(y.saved) && at.Sub(beat) <= events.AliveFor
}

// live lets time pass until it is so long since the schedules were saved; endpoints come and go.
func (y *year) live(d time.Duration) {
	members := map[int][]string{}
	for i := range yearPCs {
		pc := fmt.Sprintf("pc-%04d", i)
		members[cohort(pc)] = append(members[cohort(pc)], pc)
	}
	y.until = y.saved.Add(d)
	for {
		next, who := y.until, -1
		for c := range yearCohorts {
			if beat := beatBefore(c, time.Now()).Add(yearBeat); beat.Before(next) {
				next, who = beat, c
			}
		}
		pass(time.Until(next))
		if who < 0 {
			pass(time.Second)
		}
		require.NoError(y.t, y.told.read(y.t.Context(), y.bus))
		if who < 0 {
			return
		}
		for _, pc := range members[who] {
			y.beat(pc, "1.0.0")
		}
	}
}

// check holds the ledger against all that had to be.
func (y *year) check() string {
	c, outcomes, ticks, fires := y.told, map[string]int{}, 0, 0
	for _, f := range y.nominal {
		nominal := f.times(y.saved, y.until)
		ticks += len(nominal)
		for _, outcome := range c.requireNominal(y.t, f.id, nominal) {
			outcomes[strings.TrimSpace(outcome)]++
		}
	}
	require.Equal(y.t, ticks, outcomes["fired"], "%v", outcomes) // nothing stands against any
	for _, x := range y.cadences {
		x.from, x.alive = y.saved, y.there
		if x.whole { // as soon as anybody is there
			x.alive = func(_ string, at time.Time) bool {
				return slices.ContainsFunc(x.members, func(pc string) bool { return y.there(pc, at) })
			}
		}
		fires += c.requireCadence(y.t, x, y.until)
	}
	return fmt.Sprintf("%d nominal ticks once in the ledger and fired, %d fires of %d intervals, %d execs", ticks, fires, len(y.cadences), len(c.execs))
}

// times reads the zone's wall clock at every minute.
func (f yearForm) times(after, until time.Time) []time.Time {
	var due []time.Time
	reached := ""
	// Begun a day early, so that what is reached already on the first day is known.
	for m := after.Truncate(time.Minute).Add(-24 * time.Hour); !m.After(until); m = m.Add(time.Minute) {
		here := m.In(f.zone)
		hit := func(read time.Time) bool { return f.hours > 0 && read.Minute() == f.at && read.Hour()%f.hours == 0 }
		is := hit(here)
		if read, ok := leftOut(m, f.zone); ok {
			is = is || hit(read)
		}
		if day := here.Format(time.DateOnly); f.hours == 0 && day != reached && here.Hour()*60+here.Minute() >= f.at {
			reached = day
			is = len(f.days) == 0 || slices.Contains(f.days, here.Weekday())
		}
		if is && m.After(after) {
			due = append(due, m.UTC())
		}
	}
	return due
}

// leftOut is what a zone's clock would read at an instant, had it not been put forward so shortly before that it leaves just
// that out. An interval follows elapsed time, and comes then.
func leftOut(m time.Time, zone *time.Location) (read time.Time, ok bool) {
	_, before := m.Add(-24 * time.Hour).In(zone).Zone()
	_, now := m.In(zone).Zone()
	gap := time.Duration(now-before) * time.Second
	_, then := m.Add(-gap).In(zone).Zone()
	return m.UTC().Add(time.Duration(before) * time.Second), gap > 0 && then == before
}

// digest is of every row of the ledger, the execs' ids and plans included.
func (c *chronicle) digest() string {
	h := sha256.New()
	for _, id := range slices.Sorted(maps.Keys(c.ticks)) {
		for _, row := range c.ticks[id] {
			fmt.Fprintf(h, "%s %s %s %d %s %s", id, row.From.UTC(), row.To.UTC(), row.Count, row.Outcome, row.Reason)
			if row.Exec != nil {
				fmt.Fprintf(h, " %s %s", row.Exec.ExecID, row.Exec.Plan)
			}
			fmt.Fprintln(h)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16]
}
