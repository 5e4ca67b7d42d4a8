package systemtest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/backup"
	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// TestProveBackup takes a backup while rollouts are under way, execs are stopped, a schedule fires, and operators write as
// fast as they can; then everything is lost, and the backup is restored into an empty broker. Read models of both logs, up
// to where the backup's ends, have the same digests; nothing is known to the restored system that its log does not know;
// it goes on as if it had been away: waves that were pending go out once, ticks go on, buckets show the log, every exec
// has its outcome, and nobody runs anything twice.
func TestProveBackup(t *testing.T) {
	long(t)
	n, seed := extent(t, 50, 2)
	var facts uint64
	var execs, pending, unknown, tables int
	ok := theatres(t, n, seed, 8, func(w *theatre) {
		w.document()
		script := rand.New(rand.NewPCG(w.seed, 23))
		for range rolloutsAtOnce {
			settle(time.Duration(script.Int64N(int64(8 * time.Second))))
			x := w.exec(w.unpaused(script))
			if script.IntN(4) == 0 {
				settle(time.Duration(script.Int64N(int64(10 * time.Second))))
				w.append(events.ExecKilled{ExecID: x.id})
			}
		}
		dir, m := w.backUp(script)
		settle(time.Duration(script.Int64N(int64(2 * time.Minute))))
		w.exec(w.unpaused(script)) // nobody will know of it
		settle(10 * time.Second)

		last := m.Of(events.StreamLog).Last
		want := w.digests(w.operator, last)
		r := w.lose(dir)
		require.Equal(t, want, w.digests(w.operator, last))
		w.requireKnown()
		before := w.truths()
		all := w.goOnAfterRestore(before)
		w.requireOnce(all)
		w.requireNothingLeft(func(x *truth) bool { return !x.stopped.IsZero() || x.facts["expired.v1"] > 0 }, all)
		w.requireTruth(all)
		w.requireGroupsShown()
		for id, x := range before {
			pending += len(all[id].released) - len(x.released)
		}
		facts, execs, unknown, tables = facts+last, execs+len(before), unknown+r.Unknown, len(want)
	})
	if ok {
		t.Logf("PROVED %s: %d backups, %d facts, %d tables of the same digest, %d execs restored, %d waves went out afterwards, %d commands of unknown execs left out, seed %d",
			t.Name(), n, facts, tables, execs, pending, unknown, seed)
	}
}

// document stores a job, a schedule of it for every minute, and an object.
func (w *theatre) document() {
	w.t.Helper()
	job, err := catalog.ParseManifest([]byte("id: job\nversion: \"1\"\nexecute: {shell: sh, script: play, timeout: 60s}\n"), catalog.YAML)
	require.NoError(w.t, err)
	doc, err := job.Document()
	require.NoError(w.t, err)
	w.append(events.JobSaved{ID: "job", Version: "1", DocumentRevision: events.DocumentRevision{Document: doc, SourceType: "json", Hash: catalog.Hash(doc)}})
	s, err := catalog.ParseSchedule([]byte("id: minutely\njob_id: job\nwhen: {cron: '* * * * *'}\ntarget: {pcs: [pc-00]}\ntz: utc\n"), catalog.YAML)
	require.NoError(w.t, err)
	doc, err = s.Document()
	require.NoError(w.t, err)
	w.append(events.ScheduleSaved{ID: "minutely", JobID: "job", Enabled: true, DocumentRevision: events.DocumentRevision{Document: doc, SourceType: "json", Hash: catalog.Hash(doc)}})
	require.NoError(w.t, w.operator.PutObject(w.t.Context(), events.StoreScripts, "tool/1", strings.NewReader(strings.Repeat("x", 100_000))))
}

// unpaused draws a rollout that waits for nobody.
func (w *theatre) unpaused(script *rand.Rand) catalog.Plan {
	p := w.waves(script)
	for i := range p.Rollout.Waves {
		p.Rollout.Waves[i].Pause = false
	}
	return p
}

// backUp takes a backup while somebody writes.
func (w *theatre) backUp(script *rand.Rand) (string, backup.Manifest) {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "backup")
	taken, written := make(chan struct{}), make(chan struct{})
	expires := catalog.Duration("15m") // what an endpoint said too late for the backup it does not say again
	go func() {
		defer close(written)
		for i := 0; i < 2000; i++ {
			select {
			case <-taken:
				return
			default:
			}
			if w.append(events.AgentGrouped{PCID: fmt.Sprintf("new-%d", i%50), Groups: []string{"h", fmt.Sprint(i)}}); i%20 == 0 && len(w.execs) < 30 {
				w.exec(catalog.Plan{ExpiresAfter: &expires, Target: catalog.Target{Groups: []string{}, PCs: []string{w.pcs[script.IntN(len(w.pcs))]}}})
			}
		}
	}()
	m, err := backup.Take(w.t.Context(), bustest.Dial(w.t, w.broker), dir, "test", quiet(w.t))
	close(taken)
	<-written
	require.NoError(w.t, err)
	return dir, m
}

// digests are those of a read model of a log up to a sequence.
func (w *theatre) digests(b *bus.Bus, last uint64) map[string]string {
	w.t.Helper()
	writer, err := readmodel.OpenWriter(w.t.Context(), w.t.TempDir())
	require.NoError(w.t, err)
	defer writer.Close()
	ctx, done := context.WithCancel(w.t.Context())
	defer done()
	require.NoError(w.t, b.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog}, func(_ context.Context, batch []bus.RawMsg) error {
		var messages []readmodel.Message
		for _, m := range batch {
			if m.Seq <= last {
				messages = append(messages, readmodel.Message(m))
			}
		}
		if batch[len(batch)-1].Seq >= last {
			defer done()
		}
		_, err := writer.Apply(w.t.Context(), events.StreamLog, messages)
		return err
	}))
	at, err := writer.Checkpoint(events.StreamLog)
	require.NoError(w.t, err)
	require.Equal(w.t, last, at.Sequence)
	digests, err := writer.Digest(w.t.Context())
	require.NoError(w.t, err)
	return digests
}

// lose takes everything away but the endpoints' own directories, and restores the backup into a new broker.
func (w *theatre) lose(dir string) backup.Restored {
	w.t.Helper()
	for _, name := range slices.Collect(maps.Keys(w.running)) {
		w.cut(name)
	}
	w.broker.Shutdown()
	w.broker = bustest.Broker(w.t)
	w.operator = bustest.Dial(w.t, w.broker)
	w.readModel = w.t.TempDir()
	r, err := backup.Restore(w.t.Context(), w.operator, dir)
	require.NoError(w.t, err)
	o, err := w.operator.GetObject(w.t.Context(), events.StoreScripts, "tool/1", 1<<20)
	require.NoError(w.t, err)
	require.Len(w.t, o.Data, 100_000)
	return r
}

// requireKnown demands that every command belongs to an exec of which the log has a release, and that every wave that the
// log calls dispatched has all of its commands.
func (w *theatre) requireKnown() {
	w.t.Helper()
	stored := w.stored()
	all := w.truths()
	for _, id := range stored {
		exec, _, _ := strings.Cut(id, "/")
		require.NotNil(w.t, all[exec], id)
		require.NotEmpty(w.t, all[exec].released, id)
	}
	for id, x := range all {
		if !x.stopped.IsZero() || x.facts["expired.v1"] > 0 {
			continue
		}
		for key := range x.dispatched {
			wave, _, _ := strings.Cut(key, "/")
			expected := x.planned.Waves[x.released[key].Wave].Expected
			for _, pc := range expected {
				require.Contains(w.t, stored, fmt.Sprintf("%s/%s/commands.pc.%s", id, wave, pc))
			}
		}
	}
}

// goOnAfterRestore starts everything on the restored broker and waits until all has ended; it gives what
// the log says then. What ran of execs that the restored log does not know, endpoints had heard before: it is forgotten.
func (w *theatre) goOnAfterRestore(known map[string]*truth) map[string]*truth {
	w.t.Helper()
	w.execs = slices.DeleteFunc(w.execs, func(x *rolloutExec) bool { return known[x.id] == nil })
	bustest.Connect(w.t, w.broker).Close() // the streams fit what services demand
	w.parrot()
	began := time.Now()
	for _, pc := range w.pcs {
		w.cables[pc] = &cable{broker: w.broker}
		w.startEndpoint(pc)
	}
	w.startProjector()
	w.startScheduler("scheduler-a")
	settle(90 * time.Second)
	tick, ok, err := w.operator.Last(w.t.Context(), events.StreamLog, events.FactSubject(events.AggregateSchedule, "minutely", "ticked"))
	require.NoError(w.t, err)
	require.True(w.t, ok)
	require.True(w.t, tick.StoredAt.After(began), "the schedule goes on")
	settle(45 * time.Minute)
	all := w.truths()
	w.starts.mu.Lock()
	defer w.starts.mu.Unlock()
	maps.DeleteFunc(w.starts.runs, func(key string, _ int) bool {
		id, _, _ := strings.Cut(key, " ")
		return all[id] == nil
	})
	return all
}

// requireGroupsShown holds the bucket of groups against the log.
func (w *theatre) requireGroupsShown() {
	w.t.Helper()
	shown := 0
	for _, pc := range append(slices.Clone(w.pcs), "new-0", "new-7", "new-49") {
		fact, ok, err := w.operator.Last(w.t.Context(), events.StreamLog, events.FactSubject(events.AggregateAgent, pc, "grouped"))
		require.NoError(w.t, err)
		if !ok {
			continue
		}
		v, ok, err := w.operator.View(w.t.Context(), events.BucketAgentGroups, pc)
		require.NoError(w.t, err)
		require.True(w.t, ok, pc)
		require.Equal(w.t, fact.Seq, v.LogSeq, "the bucket shows the groups of %s", pc)
		shown++
	}
	require.GreaterOrEqual(w.t, shown, len(w.pcs))
}
