package systemtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/libs/readmodel"
)

const aDay = 24 * time.Hour

// TestProveRetention lets months pass (a year with KANADE_PROVE=full) in which operators save, fire, kill and change their
// minds, endpoints answer at once, late, twice or never, and housekeeping does its work every night, by two schedulers one of
// which comes and goes. Whenever it is tried, a read model that is made of what the log still holds has the digests of the
// one that was fed all along; what is shown of execs after their rows are forgotten is what their endpoints said; and the
// log holds no more than the rules say.
//
// By day nothing happens: the services are there for half an hour around midnight.
func TestProveRetention(t *testing.T) {
	long(t)
	days, history, ledger := 22, 4*aDay, 12*aDay
	if os.Getenv("KANADE_PROVE") == "full" {
		days, history, ledger = 365, 90*aDay, 180*aDay
	}
	seed := drawnSeed(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2040, 1, 1, 23, 50, 0, 0, time.UTC))) // later than any clock says: bustest tells why
		y := newYear(t, seed, history, ledger)
		for range days {
			y.night()
		}
		y.rest()
		t.Logf("PROVED TestProveRetention: %d days with a history of %d and a ledger of %d, %d execs, %d of them reduced and %d forgotten, "+
			"%d facts, %d left, %d rebuilds of what was left, seed %d",
			days, int(history/aDay), int(ledger/aDay), len(y.execs), y.reduced, y.forgotten, y.state().LastSeq, y.state().Msgs, y.rebuilds, seed)
	})
}

// year is a site that is used now and then.
type year struct {
	*site
	r   *rand.Rand
	bus *bus.Bus
	// execs by id, with what their endpoints will have said.
	execs map[string]*yearExec
	// later is what is still to be said.
	later                        []saying
	night_                       int
	rebuilds, reduced, forgotten int
	retain                       events.Retain
	begin                        time.Time
}

type yearExec struct {
	at     time.Time
	want   map[events.TargetState]int
	killed bool
}

type saying struct {
	at   time.Time
	fact events.Payload
}

func newYear(t *testing.T, seed uint64, history, ledger time.Duration) *year {
	y := &year{site: newSite(t), r: rand.New(rand.NewPCG(seed, 1)), execs: map[string]*yearExec{}, begin: time.Now()}
	y.limits = bustest.Limits()
	y.limits.History, y.limits.Ledger = history, ledger
	y.retain = y.limits.Kept()
	y.bus = bustest.Dial(t, y.broker)
	return y
}

const yearPCs = 6

func yearPC(n int) string { return fmt.Sprintf("pc-%d", n) }

// night is half an hour around midnight, and the day after it.
func (y *year) night() {
	y.t.Helper()
	y.startProjector()
	y.startScheduler("scheduler-a")
	if y.r.IntN(3) == 0 {
		y.startScheduler("scheduler-b")
	}
	y.startAPI()
	for n := range yearPCs {
		data, err := wire.Heartbeat{PCID: yearPC(n), At: time.Now(), AgentVersion: "1.0.0", OSFamily: "linux"}.MarshalJSON()
		require.NoError(y.t, err)
		require.NoError(y.t, y.bus.Conn().Publish(wire.SubjectHeartbeat(yearPC(n)), data))
	}
	settle(3 * time.Second)
	y.operate()
	settle(5 * time.Minute)
	y.say()
	settle(25 * time.Minute)
	y.check()
	tried := y.r.IntN(5) == 0
	if tried {
		y.startProjectorOn("projector-of-what-is-left", y.fresh())
		settle(5 * time.Second)
	}
	for name := range maps.Clone(y.running) {
		y.stop(name)
	}
	if tried {
		y.compare()
	}
	y.night_++
	time.Sleep(time.Until(y.begin.AddDate(0, 0, y.night_)))
}

// operate is what operators do on one night.
func (y *year) operate() {
	y.t.Helper()
	if y.night_ == 0 {
		y.saveJob("job")
		y.write(http.MethodPost, "/api/schedules", `{"id":"nightly","job_id":"job","when":{"calendar":{"at":"00:01"}},"target":{"pcs":["pc-0","pc-1"]},"tz":"utc"}`)
		y.write(http.MethodPost, "/api/schedules", `{"id":"rounds","job_id":"job","when":{"per_pc":{"every":"12h"}},"target":{"pcs":["pc-2"]},"tz":"utc"}`)
	}
	for range y.r.IntN(4) {
		y.exec()
	}
	for _, act := range []struct {
		odds int
		do   func()
	}{
		{4, func() { y.saveJob("job") }},
		{5, func() { y.saveJob(fmt.Sprintf("job-%d", y.r.IntN(3))) }},
		{9, func() { _, _, _ = y.try(http.MethodDelete, fmt.Sprintf("/api/jobs/job-%d", y.r.IntN(3)), "") }},
		{4, func() {
			y.write(http.MethodPut, "/api/agents/"+yearPC(y.r.IntN(yearPCs))+"/groups", fmt.Sprintf(`{"groups":["g%d"]}`, y.r.IntN(3)))
		}},
		{6, func() {
			y.write(http.MethodPost, "/api/scripts/job-1/"+[]string{"revoke", "unrevoke"}[y.r.IntN(2)], "")
		}},
		{9, func() {
			y.write(http.MethodPut, "/api/freeze", `{"until":"2040-01-01","reason":"`+strconv.Itoa(y.night_)+`"}`)
		}},
		{9, func() { _, _, _ = y.try(http.MethodDelete, "/api/freeze", "") }},
		{9, func() {
			y.write(http.MethodPost, "/api/schedules", fmt.Sprintf(`{"id":"nightly","job_id":"job","when":{"calendar":{"at":"00:0%d"}},"target":{"pcs":["pc-0","pc-1"]},"tz":"utc"}`, 1+y.r.IntN(5)))
		}},
	} {
		if y.r.IntN(act.odds) == 0 {
			act.do()
		}
	}
}

func (y *year) saveJob(id string) {
	y.write(http.MethodPost, "/api/jobs", fmt.Sprintf(`{"id":%q,"version":"%d","execute":{"shell":"sh","timeout":"30s","script":"true"}}`, id, y.night_))
}

// exec asks for a run on some endpoints, and settles what they will say: at once or days later, once or again weeks later, or
// nothing at all.
func (y *year) exec() {
	y.t.Helper()
	pcs := y.r.Perm(yearPCs)[:1+y.r.IntN(yearPCs)]
	var names []string
	for _, n := range pcs {
		names = append(names, yearPC(n))
	}
	target, err := json.Marshal(map[string]any{"target": map[string]any{"pcs": names}})
	require.NoError(y.t, err)
	var answer struct {
		ExecID string `json:"exec_id"`
	}
	require.NoError(y.t, json.Unmarshal(y.write(http.MethodPost, "/api/exec/job", string(target)), &answer))
	x := &yearExec{at: time.Now(), want: map[events.TargetState]int{}, killed: y.r.IntN(8) == 0}
	y.execs[answer.ExecID] = x
	for _, pc := range names {
		silence := events.StateExpired
		if x.killed {
			silence = events.StateSkipped
		}
		x.want[y.answers(answer.ExecID, pc, silence)]++
	}
	if x.killed {
		settle(time.Second)
		y.write(http.MethodPost, "/api/executions/"+answer.ExecID+"/kill", "")
	}
}

// answers settles what an endpoint will say of an exec, and gives the state that it will have in the end.
func (y *year) answers(exec, pc string, silence events.TargetState) events.TargetState {
	if y.r.IntN(6) == 0 {
		return silence
	}
	request := events.DeriveID(exec, "request", pc)
	run := events.Run{PCID: pc, ExecID: exec, RequestID: request, ResultID: events.ResultID(request, pc), JobID: "job", Version: "1"}
	begun := time.Now().Add(time.Duration(y.r.IntN(120)) * time.Second)
	told := begun
	if y.r.IntN(4) == 0 { // it was off, or its network was
		told = begun.Add(time.Duration(y.r.Int64N(int64(y.retain.History - aDay))))
	}
	state := []events.TargetState{events.StateSucceeded, events.StateSucceeded, events.StateFailed}[y.r.IntN(3)]
	code := map[events.TargetState]int{events.StateFailed: 1}[state]
	end := events.RunFinished{Run: run, StartedAt: begun, FinishedAt: begun.Add(time.Second), State: state, ExitCode: &code, Stdout: events.Output{Text: "out of " + exec + " on " + pc, Bytes: 10}}
	start := events.RunStarted{Run: run, StartedAt: begun}
	if y.r.IntN(3) == 0 {
		start.StartedAt = begun
		y.later = append(y.later, saying{begun, start}) // the start went out before it was off
	} else {
		y.later = append(y.later, saying{told, start})
	}
	y.later = append(y.later, saying{told, end})
	for y.r.IntN(6) == 0 { // told again
		y.later = append(y.later, saying{told.Add(time.Duration(y.r.Int64N(int64(2 * y.retain.History)))), end})
	}
	return state
}

// say says what is due.
func (y *year) say() {
	y.t.Helper()
	slices.SortStableFunc(y.later, func(a, b saying) int { return a.at.Compare(b.at) })
	for len(y.later) > 0 && y.later[0].at.Before(time.Now()) {
		e, err := events.New(y.later[0].fact, events.Meta{
			ID:     events.DeriveID(y.later[0].fact.AggregateID(), y.later[0].at.String(), y.later[0].fact.EventType(), strconv.Itoa(len(y.later))),
			Source: "/kanade/agent", Time: time.Now(), Actor: "agent:pc",
		})
		require.NoError(y.t, err)
		_, err = y.bus.Append(y.t.Context(), e, bus.Any)
		require.NoError(y.t, err)
		y.later = y.later[1:]
	}
}

// check holds what the API says of execs against what their endpoints have said.
func (y *year) check() {
	y.t.Helper()
	y.reduced, y.forgotten = 0, 0
	for id, x := range y.execs {
		old := time.Since(x.at)
		const soon = 2 * time.Hour // the rules count in whole hours
		past := func(age time.Duration) bool { return old > age+soon }
		if old > y.retain.Ledger && !past(y.retain.Ledger) || old > y.retain.History && !past(y.retain.History) {
			continue
		}
		if old > 2*aDay && old < y.retain.History && y.r.IntN(10) > 0 {
			continue // nothing happens to them
		}
		text, _, err := y.try(http.MethodGet, "/api/executions/"+id, "", "Kanade-Min-Sequence", strconv.FormatUint(y.seen, 10))
		if past(y.retain.Ledger) {
			require.ErrorContains(y.t, err, "404", "an exec %s old", old)
			y.forgotten++
			continue
		}
		require.NoError(y.t, err)
		var answer struct {
			Execution struct {
				Status    string
				Forgotten bool
				Totals    struct {
					Expected, Others map[events.TargetState]int
				}
			}
		}
		require.NoError(y.t, json.Unmarshal(text, &answer))
		require.Equal(y.t, past(y.retain.History), answer.Execution.Forgotten, "an exec %s old", old)
		if past(y.retain.History) {
			y.reduced++
			got := answer.Execution.Totals.Expected
			for state, n := range answer.Execution.Totals.Others {
				got[state] += n
			}
			require.Equal(y.t, x.want, got, "exec %s, killed %v, of %s", id, x.killed, x.at)
		}
	}
}

func (y *year) fresh() string { return y.readModel + "-of-what-is-left-" + strconv.Itoa(y.night_) }

// compare holds the read model that was fed all along against one that was just made.
func (y *year) compare() {
	y.t.Helper()
	digests := func(dir string) (map[string]string, uint64) {
		slot, err := readmodel.ClaimSlot(dir, y.retain)
		require.NoError(y.t, err)
		w, damaged, err := slot.Continue(y.t.Context())
		require.NoError(y.t, err)
		require.NoError(y.t, damaged)
		all, err := w.Digest(y.t.Context())
		require.NoError(y.t, err)
		at, err := w.Checkpoint(events.StreamLog)
		require.NoError(y.t, err)
		require.NoError(y.t, w.Close())
		require.NoError(y.t, slot.Close())
		return all, at.Sequence
	}
	have, at := digests(y.readModel)
	want, up := digests(y.fresh())
	require.Equal(y.t, up, at)
	require.Equal(y.t, want, have, "on night %d", y.night_)
	y.rebuilds++
	require.NoError(y.t, os.RemoveAll(y.fresh()))
}

// rest looks at what the log holds in the end.
func (y *year) rest() {
	y.t.Helper()
	require.Positive(y.t, y.rebuilds)
	require.Positive(y.t, y.reduced)
	require.Positive(y.t, y.forgotten)
	now := time.Now()
	for id, x := range y.execs {
		facts, err := y.bus.Load(y.t.Context(), events.AggregateExec, id, 0)
		require.NoError(y.t, err)
		switch old := now.Sub(x.at); {
		case old > y.retain.Ledger+events.Slack+2*aDay:
			require.Empty(y.t, facts, "an exec %s old", old)
		case old > y.retain.History+events.Slack+2*aDay && old < y.retain.Ledger+events.Slack:
			require.Len(y.t, facts, 1, "an exec %s old", old)
			require.Equal(y.t, events.ExecReduced{}.EventType(), facts[0].Type)
		}
	}
	require.NoError(y.t, y.bus.Walk(y.t.Context(), ">", 0, func(m bus.RawMsg) (bool, error) {
		if events.Ages(m.Header) {
			require.Less(y.t, now.Sub(m.Time), y.retain.History+events.Slack+2*aDay, "%s", m.Subject)
		}
		return true, nil
	}))
}

// state is what the log holds.
func (y *year) state() jetstream.StreamState {
	stream, err := y.bus.JetStream().Stream(y.t.Context(), events.StreamLog)
	require.NoError(y.t, err)
	return stream.CachedInfo().State
}
