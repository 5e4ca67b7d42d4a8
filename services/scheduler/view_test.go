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

// Jobs and schedules stand in the bucket of our agents as they are stored, and in those of 0.43.45 where it can read them;
// schedules that agents run make no ticks here.
func TestDocumentsAreShownToAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		value := func(bucket, key string) string {
			v, ok, err := w.bus.View(t.Context(), bucket, key)
			require.NoError(t, err)
			if !ok || v.Deleted {
				return ""
			}
			require.True(t, v.Ours)
			return string(v.Value)
		}
		w.job("job", "1") // of the shell sh
		m, err := catalog.ParseManifest([]byte("id: old\nversion: '1'\nexecute: {shell: cmd, script: 'true', timeout: 30s}\n"), catalog.YAML)
		require.NoError(t, err)
		doc, err := m.Document()
		require.NoError(t, err)
		w.append(events.JobSaved{ID: "old", Version: "1", DocumentRevision: events.DocumentRevision{Document: doc}})
		w.schedule("agents", "when: {calendar: {at: '00:05'}}\ntarget: {all: true}\ntz: utc\nruns_on: agent")
		w.schedule("ours", "when: {cron: '5 0 * * *'}\ntarget: {all: true}\ntz: utc")
		pass(10 * time.Minute)
		require.Contains(t, value(events.BucketCatalog, "jobs.job"), `"shell":"sh"`)
		require.Empty(t, value(events.BucketJobs, "job"))
		require.Equal(t, string(doc), value(events.BucketJobs, "old"))
		require.Equal(t, string(doc), value(events.BucketCatalog, "jobs.old"))
		require.Contains(t, value(events.BucketSchedules, "agents"), `"runs_on":"agent"`)
		require.Empty(t, value(events.BucketSchedules, "ours"))
		require.Contains(t, value(events.BucketCatalog, "schedules.ours"), `"cron":"5 0 * * *"`)
		requireLedger(t, w, "agents")
		requireLedger(t, w, "ours", "01 00:05 fired")
		w.append(events.ScheduleDeleted{ID: "agents"})
		w.append(events.JobDeleted{ID: "old"})
		pass(time.Second)
		for _, bucket := range []string{events.BucketJobs, events.BucketSchedules} {
			require.Empty(t, value(bucket, "old")+value(bucket, "agents"))
		}
		require.Empty(t, value(events.BucketCatalog, "jobs.old")+value(events.BucketCatalog, "schedules.agents"))
	})
}
