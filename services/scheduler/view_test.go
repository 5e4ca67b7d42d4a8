package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler"
)

// What an old CLI does to a bucket is decided upon like any other fact, and shown to everybody.
func TestOldCLIsMembershipIsTargeted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		w.beat("pc1", "1.0.0")
		w.beat("pc2", "1.0.0")
		pass(time.Second)
		kv, err := w.bus.JetStream().KeyValue(t.Context(), events.BucketAgentGroups)
		require.NoError(t, err)
		_, err = kv.PutString(t.Context(), "pc1", `{"groups":["canary"]}`)
		require.NoError(t, err)
		pass(time.Second)
		w.exec("x", catalog.Target{Groups: []string{"canary"}})
		pass(time.Second)
		plan := of[events.ExecPlanned](w.facts(events.AggregateExec, "x"))[0]
		require.Equal(t, []string{"pc1"}, plan.Waves[0].Expected)
		require.Equal(t, []events.AgentGrouped{{PCID: "pc1", Groups: []string{"canary"}}}, of[events.AgentGrouped](w.facts(events.AggregateAgent, "pc1")))
		v, ok, err := w.bus.View(t.Context(), events.BucketAgentGroups, "pc1")
		require.NoError(t, err)
		require.True(t, ok && v.Ours)
	})
}
