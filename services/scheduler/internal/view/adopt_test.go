package view_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

const (
	groups = events.BucketAgentGroups
	status = events.BucketScriptStatus
)

// newest is the last fact of an aggregate, nil if there is none.
func (w *world) newest(a events.Aggregate, id string) (p events.Payload, seq uint64) {
	w.t.Helper()
	all := w.facts(a, id)
	if len(all) == 0 {
		return nil, 0
	}
	s := all[len(all)-1]
	p, err := s.Payload()
	require.NoError(w.t, err)
	return p, s.Seq
}

func TestOldCLIsActsAreAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(groups, "pc", `{"groups":["b","a"]}`) // before there was a scheduler
		stop := w.run(0)
		pass(time.Second)
		fact, seq := w.newest(events.AggregateAgent, "pc")
		require.Equal(t, events.AgentGrouped{PCID: "pc", Groups: []string{"a", "b"}}, fact)
		value, at := w.shown(groups, "pc")
		require.Equal(t, `{"groups":["a","b"]}`, value)
		require.Equal(t, seq, at)

		stop()
		w.tell(events.AgentSeen{PCID: "pc", AgentVersion: "1"})
		pass(time.Second)
		w.put(groups, "pc", `{"groups":["c"]}`)
		w.put(groups, "pc", `{"groups":["d"]}`) // within one tick of the broker's clock
		wrote := time.Now()
		w.put(status, "job", "REVOKED")
		pass(time.Hour)
		w.run(0)
		w.run(0)
		pass(time.Second)
		all := w.facts(events.AggregateAgent, "pc")
		last := all[len(all)-1]
		require.Equal(t, events.Actor("cli:agent_groups"), last.Actor)
		require.True(t, wrote.Equal(last.Time), "it happened when it was written")
		require.Equal(t, events.DeriveID(groups, "pc", "4"), last.ID)
		require.Len(t, all, 4)
		value, _ = w.shown(groups, "pc")
		require.Equal(t, `{"groups":["d"]}`, value)
		v, _, err := w.bus.View(t.Context(), groups, "pc")
		require.NoError(t, err)
		require.Equal(t, uint64(5), v.Revision, "the earlier act's value does not cover the later one")
		fact, _ = w.newest(events.AggregateScript, "job")
		require.Equal(t, events.ScriptRevoked{JobID: "job"}, fact)

		require.NoError(t, w.kv(groups).Delete(t.Context(), "pc"))
		require.NoError(t, w.kv(status).Purge(t.Context(), "job"))
		pass(time.Second)
		fact, _ = w.newest(events.AggregateAgent, "pc")
		require.Equal(t, events.AgentGrouped{PCID: "pc", Groups: []string{}}, fact)
		value, _ = w.shown(groups, "pc")
		require.Equal(t, `{"groups":[]}`, value)
		fact, _ = w.newest(events.AggregateScript, "job")
		require.Equal(t, events.ScriptUnrevoked{JobID: "job"}, fact)
		value, _ = w.shown(status, "job")
		require.Equal(t, "ACTIVE", value)
		require.Equal(t, map[string]int{"adopted": 4}, w.adoptions(groups))
		require.Equal(t, map[string]int{"adopted": 2}, w.adoptions(status))
	})
}

func TestWhatIsNotAdoptedIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(0)
		w.tell(events.AgentGrouped{PCID: "pc", Groups: []string{"a"}})
		w.tell(events.ScriptRevoked{JobID: "job"})
		pass(time.Second)
		refused := func(bucket, key, value, want string) {
			t.Helper()
			before, err := w.bus.LastSeq(t.Context(), events.StreamLog)
			require.NoError(t, err)
			w.put(bucket, key, value)
			pass(time.Second)
			got, _ := w.shown(bucket, key)
			require.Equal(t, want, got)
			after, err := w.bus.LastSeq(t.Context(), events.StreamLog)
			require.NoError(t, err)
			require.Equal(t, before, after)
		}
		const a = `{"groups":["a"]}`
		for _, junk := range []string{"", "{", `{"groups":["b c"]}`, `{"groups":[""]}`, `{"groups":null}`, `["b"]`} {
			refused(groups, "pc", junk, a)
		}
		refused(groups, "-pc", a, "-")
		refused(status, "job", "revoked", "REVOKED")
		refused(status, "job", "", "REVOKED")
		require.Equal(t, map[string]int{"invalid": 7}, w.adoptions(groups))

		refused(groups, "pc", `{"groups":["a","a"],"more":1}`, a)
		refused(groups, "nobody", `{"groups":[]}`, "-")
		refused(status, "job", "REVOKED", "REVOKED")
		refused(status, "other", "ACTIVE", "-")
		require.Equal(t, map[string]int{"invalid": 2, "unchanged": 2}, w.adoptions(status))
		w.put(status, "other", "REVOKED")
		pass(time.Second)
		got, _ := w.shown(status, "other")
		require.Equal(t, "REVOKED", got, "what was put back to nothing is no obstacle")
	})
}

func TestALaterFactWinsOverAnOldCLI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(groups, "pc", `{"groups":["theirs"]}`)
		pass(time.Second)
		seq := w.tell(events.AgentGrouped{PCID: "pc", Groups: []string{"ours"}})
		pass(time.Second)
		w.tell(events.AgentSeen{PCID: "pc", AgentVersion: "1"})
		w.run(0)
		pass(time.Second)
		value, at := w.shown(groups, "pc")
		require.Equal(t, `{"groups":["ours"]}`, value)
		require.Equal(t, seq, at)
		require.Equal(t, map[string]int{"older": 1}, w.adoptions(groups))
		require.Len(t, w.facts(events.AggregateAgent, "pc"), 2)
	})
}

// A scheduler that died after the append has its work finished, and counted as what it was.
func TestAdoptionIsFinishedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(status, "job", "REVOKED")
		e, err := events.New(events.ScriptRevoked{JobID: "job"}, events.Meta{
			ID: events.DeriveID(status, "job", "1"), Source: "/kanade/scheduler", Time: time.Now(), Actor: "cli:script_status",
		})
		require.NoError(t, err)
		_, err = w.bus.Append(t.Context(), e, 0)
		require.NoError(t, err)
		pass(time.Hour)
		seq := w.tell(events.ScriptUnrevoked{JobID: "job"})
		w.run(0)
		pass(time.Second)
		value, at := w.shown(status, "job")
		require.Equal(t, "ACTIVE", value)
		require.Equal(t, seq, at)
		require.Equal(t, map[string]int{"adopted": 1}, w.adoptions(status))
		require.Len(t, w.facts(events.AggregateScript, "job"), 2)
	})
}
