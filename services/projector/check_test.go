package projector

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// filesOf are the model files of the first slot.
func filesOf(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "slot-0", "model-*.db"))
	require.NoError(t, err)
	return files
}

// tamper writes into the first slot's file as no projector would.
func tamper(t testing.TB, dir, statement string) {
	t.Helper()
	files := filesOf(t, dir)
	require.Len(t, files, 1)
	db, err := sql.Open("sqlite", "file:"+files[0]+"?_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	done, err := db.Exec(statement)
	require.NoError(t, err)
	n, err := done.RowsAffected()
	require.NoError(t, err)
	require.NotZero(t, n)
	require.NoError(t, db.Close())
}

// ask requests a check and gives what the projectors found: so many answers.
func ask(t testing.TB, b *bus.Bus, rebuild bool, reason string, answers int) (found []events.ReadModelChecked) {
	t.Helper()
	seq := add(t, b, events.ReadModelCheckRequested{ID: events.ReadModelID, Rebuild: rebuild, Reason: reason})
	require.Eventually(t, func() bool {
		facts, err := b.Load(t.Context(), events.AggregateConfig, events.ReadModelID, seq)
		if err != nil {
			return false
		}
		found = nil
		for _, f := range facts {
			if p, err := f.Payload(); err == nil {
				if c, ok := p.(events.ReadModelChecked); ok {
					found = append(found, c)
				}
			}
		}
		return len(found) >= answers
	}, time.Minute, 10*time.Millisecond, "%d answers", answers)
	return found
}

// A check names every row that differs and leaves the file alone; a rebuild replaces it. Every copy says the same digests.
func TestCheckAndRebuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		stop := start(t, b, dir)
		defer func() { stop() }()
		r := read(t, dir)
		for i := range 30 {
			add(t, b, requested(fmt.Sprint("e", i)), events.ExecClosed{ExecID: fmt.Sprint("e", i), Outcome: events.OutcomeFailed})
		}
		waitFor(t, r, 60)

		found := ask(t, b, false, "nothing is wrong", 1)[0]
		require.Empty(t, found.Error)
		require.Empty(t, found.Differing)
		require.False(t, found.Rebuilt)
		require.GreaterOrEqual(t, found.Sequence, uint64(60))
		require.Equal(t, "slot-0", found.Slot)
		require.NotEmpty(t, found.Digests["executions"])
		require.Len(t, filesOf(t, dir), 1, "nothing is left of it")

		tamper(t, dir, "UPDATE executions SET outcome = 'succeeded' WHERE exec_id IN ('e3', 'e17')")
		before := filesOf(t, dir)
		found = ask(t, b, false, "two are wrong", 1)[0]
		require.Equal(t, map[string]int{"executions": 2}, found.Differing)
		require.Len(t, found.Differences, 2)
		require.Contains(t, found.Differences[0], "executions [e17]")
		require.Equal(t, before, filesOf(t, dir))
		e, err := r.Execution(t.Context(), "e3")
		require.NoError(t, err)
		require.EqualValues(t, "succeeded", e.Outcome)

		found = ask(t, b, true, "mend it", 1)[0]
		require.True(t, found.Rebuilt)
		require.Len(t, found.Differences, 2)
		waitFor(t, r, add(t, b, requested("later")))
		time.Sleep(2 * replacedAfter)
		require.NotEqual(t, before, filesOf(t, dir))
		require.Len(t, filesOf(t, dir), 1)
		e, err = r.Execution(t.Context(), "e3")
		require.NoError(t, err)
		require.Equal(t, events.OutcomeFailed, e.Outcome)

		second := start(t, b, dir) // another copy
		defer second()
		require.Eventually(t, func() bool {
			files, err := filepath.Glob(filepath.Join(dir, "slot-1", "model-*.db"))
			return err == nil && len(files) == 1
		}, time.Minute, 10*time.Millisecond)
		time.Sleep(time.Second)
		both := ask(t, b, true, "all", 2)
		require.NotEqual(t, both[0].Slot, both[1].Slot)
		for _, c := range both {
			require.True(t, c.Rebuilt)
			require.Empty(t, c.Differing)
		}
		stop()
		add(t, b, events.ReadModelCheckRequested{ID: events.ReadModelID, Rebuild: true, Reason: "while it was away"})
		stop = start(t, b, dir)
		require.Eventually(t, func() bool {
			facts, err := b.Load(t.Context(), events.AggregateConfig, events.ReadModelID, 0)
			require.NoError(t, err)
			answers := 0
			for _, f := range facts {
				if p, err := f.Payload(); err == nil {
					if c, ok := p.(events.ReadModelChecked); ok && c.Slot == "slot-0" {
						answers++
					}
				}
			}
			return answers == 5
		}, time.Minute, 10*time.Millisecond, "it answers when it is back")
	})
}

// Readers see no file before it has what the log had, and no error while one takes the other's place.
func TestReadersAreGivenWholeFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		var last uint64
		for i := range 2000 {
			last = add(t, b, requested(fmt.Sprint("e", i)))
		}
		r := read(t, dir)
		stop := start(t, b, dir)
		defer func() { stop() }()
		for seen := uint64(0); seen < last; {
			at, _, err := r.Applied(t.Context())
			if err != nil {
				require.ErrorIs(t, err, readmodel.ErrNoModel)
				time.Sleep(time.Millisecond)
				continue
			}
			require.GreaterOrEqual(t, at, last)
			seen = at
		}
	})
}

// Files take each other's place under readers that never stop: no read fails, and what one has seen is not gone.
func TestRebuildUnderReads(t *testing.T) {
	b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
	stop := start(t, b, dir)
	defer func() { stop() }()
	for i := range 500 {
		add(t, b, requested(fmt.Sprint("e", i)))
	}
	r := read(t, dir)
	waitFor(t, r, 500)
	done, reads := make(chan struct{}), atomic.Int64{}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			seen := 0
			for {
				select {
				case <-done:
					return
				default:
				}
				found, _, err := r.Executions(context.Background(), readmodel.ExecutionFilter{Page: readmodel.Page{Limit: readmodel.All}})
				if err != nil || len(found) < seen {
					t.Errorf("%d executions after %d: %v", len(found), seen, err)
					return
				}
				seen = len(found)
				reads.Add(1)
			}
		})
	}
	for n := range 4 {
		for i := range 50 {
			add(t, b, requested(fmt.Sprint("n", n, "-", i)))
		}
		require.True(t, ask(t, b, true, "under reads", 1)[0].Rebuilt)
	}
	waitFor(t, r, add(t, b, requested("last")))
	close(done)
	readers.Wait()
	require.Greater(t, reads.Load(), int64(10))
	t.Logf("%d reads, 4 files took the place of others", reads.Load())
}
