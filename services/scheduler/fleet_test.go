package scheduler_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler"
)

func TestEndpointsAreRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.beat("before", "1.0.0")
		w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		w.beat("pc1", "1.0.0")
		pass(time.Second)
		w.beat("pc1", "1.0.0")
		pass(time.Second)
		w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{"g"}})
		w.beat("pc1", "1.0.1")
		pass(time.Second)
		w.beat("pc1", "1.0.1")
		for _, id := range []string{"-dash", "dot.", "a+b"} {
			w.beat(id, "1.0.0")
		}
		require.NoError(t, w.bus.Conn().Publish("heartbeat.junk", []byte("{")))
		pass(time.Second)
		seen := of[events.AgentSeen](w.facts(events.AggregateAgent, "pc1"))
		require.Equal(t, []events.AgentSeen{
			{PCID: "pc1", AgentVersion: "1.0.0", Hostname: "pc1", OSFamily: "linux"}, {PCID: "pc1", AgentVersion: "1.0.1", Hostname: "pc1", OSFamily: "linux"},
		}, seen)
		require.Len(t, w.facts(events.AggregateAgent, "before"), 1)
		for _, id := range []string{"-dash", "dot.", "a+b", "junk"} {
			require.Empty(t, w.facts(events.AggregateAgent, id))
		}
	})
}

func TestGroupsAreShownToAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		view := func(pc string) (groups wire.AgentGroups, seq uint64) {
			value, seq, _, ok, err := w.bus.GetView(t.Context(), events.BucketAgentGroups, pc)
			require.NoError(t, err)
			require.True(t, ok)
			require.NoError(t, json.Unmarshal(value, &groups))
			return groups, seq
		}
		seq := w.append(events.AgentGrouped{PCID: "a/b.c", Groups: []string{"g", "h"}})
		pass(time.Second)
		groups, at := view("a/b.c")
		require.Equal(t, []string{"g", "h"}, groups.Groups)
		require.Equal(t, seq, at)
		stop()
		w.append(events.AgentGrouped{PCID: "a/b.c", Groups: []string{"g"}})
		seq = w.append(events.AgentGrouped{PCID: "a/b.c", Groups: []string{}})
		_, err := w.bus.JetStream().Publish(t.Context(), "$KV.agent_groups.old", []byte(`{"groups":["theirs"]}`))
		require.NoError(t, err)
		w.append(events.AgentGrouped{PCID: "old", Groups: []string{"ours"}})
		w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		pass(time.Second)
		groups, at = view("a/b.c")
		require.Empty(t, groups.Groups)
		require.Equal(t, seq, at)
		groups, _ = view("old")
		require.Equal(t, []string{"ours"}, groups.Groups, "what an old CLI wrote is older")
	})
}

// An endpoint's own clock says nothing about whether it is alive.
func TestPresenceGoesByTheBrokersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		beat := func(id string, at time.Time) {
			data, err := wire.Heartbeat{PCID: id, At: at, AgentVersion: "1.0.0", Hostname: id, OSFamily: "linux"}.MarshalJSON()
			require.NoError(t, err)
			require.NoError(t, w.bus.Conn().Publish(wire.SubjectHeartbeat(id), data))
		}
		beat("silent", time.Now().AddDate(1, 0, 0))
		pass(90 * time.Second)
		beat("past", time.Now().AddDate(-10, 0, 0))
		pass(31 * time.Second)
		w.exec("x", catalog.Target{All: true})
		pass(time.Second)
		plan := of[events.ExecPlanned](w.facts(events.AggregateExec, "x"))[0]
		require.Equal(t, []string{"past"}, plan.Waves[0].Expected)
		require.Equal(t, []string{"silent"}, plan.Waves[0].Waiting)
	})
}

// forgetLog takes out what only a fold knows now: everything but documents and the last fact.
func (w *world) forgetLog() {
	w.t.Helper()
	last, err := w.bus.LastSeq(w.t.Context(), events.StreamLog)
	require.NoError(w.t, err)
	s, err := w.bus.JetStream().Stream(w.t.Context(), events.StreamLog)
	require.NoError(w.t, err)
	for seq := uint64(1); seq < last; seq++ {
		m, ok, err := w.bus.Get(w.t.Context(), events.StreamLog, seq)
		require.NoError(w.t, err)
		if ok && !strings.HasSuffix(m.Subject, ".saved") {
			require.NoError(w.t, s.DeleteMsg(w.t.Context(), seq))
		}
	}
}

func TestSavedFoldIsContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		w.agent("pc1", silent, "g")
		w.job("job", "1")
		w.schedule("s", "when: {cron: '*/10 * * * *'}\ntarget: {groups: [g]}\ntz: utc")
		w.exec("x", catalog.Target{All: true})
		pass(5 * time.Minute)
		stop()
		w.forgetLog()
		w.run(scheduler.Deps{})
		pass(6 * time.Minute)
		requireLedger(t, w, "s", "01 00:10 fired")
		plan := of[events.ExecPlanned](w.facts(events.AggregateExec, w.ledger("s")[0].Exec.ExecID))[0]
		require.Equal(t, []string{"pc1"}, plan.Waves[0].Expected, "it knows the endpoint and its group")
	})
}

func TestSavedFoldOfAnotherLogIsThrownAway(t *testing.T) {
	for name, fill := range map[string]struct {
		first uint64 // of the other log, counted from where the fold was saved; 0: it begins at 1
		until int    // facts it gets, counted from there
	}{
		"shorter": {until: -1 << 30}, "of the same length": {until: 0}, "longer": {until: 200}, "begun beyond it": {first: 10, until: 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				stop := w.run(scheduler.Deps{})
				w.agent("pc1", nil, "g")
				w.job("job", "1")
				w.schedule("old", "when: {cron: '* * * * *'}\ntarget: {all: true}\ntz: utc")
				pass(10*time.Minute + 17*time.Second) // an instant at which nothing happens: on the simulated clock both logs could hold a fact of one time
				stop()
				saved := w.anotherLog(fill.first)
				w.job("job", "1")
				w.schedule("new", "when: {cron: '*/5 * * * *'}\ntarget: {all: true}\ntz: utc")
				w.append(events.AgentGrouped{PCID: "pc2", Groups: []string{"g"}})
				for last := uint64(0); int(last) < int(saved)+fill.until-1; {
					last = w.append(events.AgentGrouped{PCID: "pc2", Groups: []string{"g"}})
				}
				w.exec("x", catalog.Target{Groups: []string{"g"}})
				w.run(scheduler.Deps{})
				pass(10 * time.Minute)
				require.Empty(t, w.ledger("old"))
				requireLedger(t, w, "new", "01 00:15 fired", "01 00:20 fired")
				require.Empty(t, of[events.ExecPlanned](w.facts(events.AggregateExec, "x"))[0].Waves, "nothing of the old log is in the plan")
			})
		})
	}
}

// anotherLog puts an empty log into the place of the one that is there, and gives the last sequence of that. The new one
// begins so many behind it; 0: at 1.
func (w *world) anotherLog(behind uint64) (last uint64) {
	w.t.Helper()
	s, err := w.bus.JetStream().Stream(w.t.Context(), events.StreamLog)
	require.NoError(w.t, err)
	config := s.CachedInfo().Config
	last = s.CachedInfo().State.LastSeq
	require.NoError(w.t, w.bus.JetStream().DeleteStream(w.t.Context(), events.StreamLog))
	if behind > 0 {
		config.FirstSeq = last + behind
	}
	_, err = w.bus.JetStream().CreateStream(w.t.Context(), config)
	require.NoError(w.t, err)
	return last
}

// A log that comes back from a backup while the scheduler runs is folded again before anything is decided.
func TestLogGoesBackUnderARunningScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.job("job", "1")
		w.schedule("old", "when: {cron: '* * * * *'}\ntarget: {all: true}\ntz: utc")
		w.append(events.AgentGrouped{PCID: "gone", Groups: []string{"g"}})
		pass(10*time.Minute + 30*time.Second)
		require.NoError(t, w.bus.JetStream().DeleteStream(t.Context(), events.StreamLog))
		require.NoError(t, w.bus.Ensure(t.Context(), bustest.Limits()))
		w.append(events.InstallationSaved{ID: events.InstallationID, Zone: "UTC"})
		bustest.Restart(t, w.broker, time.Second)
		pass(10 * time.Second)
		w.job("job", "1")
		w.schedule("new", "when: {cron: '*/5 * * * *'}\ntarget: {all: true}\ntz: utc")
		w.agent("pc1", nil)
		pass(time.Second)
		w.exec("x", catalog.Target{All: true})
		pass(10 * time.Minute)
		require.Empty(t, w.ledger("old"))
		require.Len(t, w.ledger("new"), 2)
		require.Contains(t, w.types("x"), "closed")
	})
}

// The last heartbeat and the last fact may be gone; that keeps nobody from getting ready.
func TestReadyWithoutTheLastMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.beat("pc1", "1.0.0")
		last := w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{"g"}})
		pass(time.Second)
		for stream, seq := range map[string]uint64{events.StreamPresence: 1, events.StreamLog: last} {
			s, err := w.bus.JetStream().Stream(t.Context(), stream)
			require.NoError(t, err)
			require.NoError(t, s.DeleteMsg(t.Context(), seq))
		}
		w.run(scheduler.Deps{})
		w.exec("x", catalog.Target{All: true})
		pass(time.Second)
		require.Equal(t, []string{"requested", "planned", "closed"}, w.types("x"))
	})
}

// A huge exec does not stand before an urgent one.
func TestHugeExecHoldsNobodyUp(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.ears = nil
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		pass(time.Second)
		pcs := make([]string, n)
		for i := range pcs {
			pcs[i] = fmt.Sprintf("pc-%06d", i)
		}
		w.exec("huge", catalog.Target{PCs: pcs})
		w.exec("urgent", catalog.Target{PCs: []string{"pc1"}})
		for !slices.Contains(w.types("huge"), "wave-dispatched") || !slices.Contains(w.types("urgent"), "closed") {
			pass(time.Second)
		}
		last := func(id string) (seq uint64) {
			stored, err := w.bus.Load(t.Context(), events.AggregateExec, id, 0)
			require.NoError(t, err)
			for _, s := range stored {
				if s.Fact() == "wave-dispatched" {
					seq = s.Seq
				}
			}
			return seq
		}
		require.Less(t, last("urgent"), last("huge"))
		require.Equal(t, n, of[events.WaveDispatched](w.facts(events.AggregateExec, "huge"))[0].Commands)
	})
}

func TestStartStop(t *testing.T) {
	b := bustest.Broker(t)
	c := bustest.Connect(t, b)
	e, err := events.New(execRequest(t, "x", catalog.Target{PCs: []string{"a", "b"}}), events.Meta{ID: "1", Source: "/kanade/test", Time: time.Now()})
	require.NoError(t, err)
	_, err = c.Append(t.Context(), e, bus.Any)
	require.NoError(t, err)
	bustest.Stress(t, func(ctx context.Context) error {
		return scheduler.Run(ctx, scheduler.Config{Workers: 1}, scheduler.Deps{Bus: c, Logger: bustest.Logger(t), Metrics: prometheus.NewRegistry()})
	})
	facts, err := c.Load(t.Context(), events.AggregateExec, "x", 0)
	require.NoError(t, err)
	require.Len(t, facts, 4)
}

// A handler in flight when it is time to end is not kept waiting by a fold that has ended before it.
func TestStopIsPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 20 {
			stop, _ := w.start(scheduler.Deps{})
			w.exec(fmt.Sprintf("x%d", i), catalog.Target{PCs: []string{"a"}})
			pass(time.Duration(i) * time.Millisecond)
			begin := time.Now()
			stop()
			require.Less(t, time.Since(begin), 5*time.Second)
		}
	})
}
