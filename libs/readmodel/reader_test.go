package readmodel

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func read(t testing.TB, dir string) *Reader {
	t.Helper()
	r, err := OpenReader(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestReaderBeforeThereIsAModel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "readmodel")
	r := read(t, dir)
	_, _, err := r.Jobs(t.Context(), everything)
	require.ErrorIs(t, err, ErrNoModel)
	require.ErrorIs(t, r.WaitFor(within(t, 10*time.Millisecond), 1), ErrBehind)
	open(t, dir)
	require.NoError(t, r.WaitFor(within(t, 5*time.Second), 0))
	list, _, err := r.Jobs(t.Context(), everything)
	require.NoError(t, err)
	require.Empty(t, list)
	_, err = r.Job(t.Context(), "nope")
	require.ErrorIs(t, err, ErrNotFound)
}

// Queries go to the slot that is furthest, move when another one is, and survive the end of a slot.
func TestReaderFailsOver(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 4)
	first, second := open(t, dir), open(t, dir)
	apply(t, first, log[:48])
	apply(t, second, log[:24])
	r := read(t, dir)
	require.NoError(t, r.WaitFor(within(t, 5*time.Second), 48))

	apply(t, second, log) // the first one stands still from here on
	require.NoError(t, r.WaitFor(within(t, 5*time.Second), uint64(len(log))))

	require.NoError(t, second.Close())
	require.NoError(t, os.RemoveAll(filepath.Dir(second.Path())))
	require.Eventually(t, func() bool {
		at, _, err := r.Applied(t.Context())
		return err == nil && at == 48
	}, 5*time.Second, 10*time.Millisecond, "the other slot is asked")

	third := open(t, dir) // in the directory of the one that went, under another name
	require.Equal(t, filepath.Dir(second.Path()), filepath.Dir(third.Path()))
	require.NotEqual(t, second.Path(), third.Path())
	apply(t, third, log)
	require.NoError(t, r.WaitFor(within(t, 5*time.Second), uint64(len(log))))
}

// A query that meets damage is answered by another copy, and so are those that follow; without another copy, those that do not
// meet it are answered still.
func TestReaderLeavesADamagedFile(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 4)
	first, second := open(t, dir), open(t, dir)
	apply(t, first, log)
	apply(t, second, log[:len(log)-1])
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())
	spoil(t, first.Path(), "results_started")

	r := read(t, dir)
	at, _, err := r.Applied(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, len(log), at, "the damaged one, which is further")
	for range 2 {
		found, _, err := r.Results(t.Context(), ResultFilter{Page: everything})
		require.NoError(t, err)
		require.NotEmpty(t, found)
	}
	slots, err := r.Slots(t.Context())
	require.NoError(t, err)
	require.Len(t, slots, 2)
	require.ErrorContains(t, slots[0].Damaged, "malformed")
	require.False(t, slots[0].Asked)
	require.NoError(t, slots[1].Damaged)
	require.True(t, slots[1].Asked)

	require.NoError(t, os.RemoveAll(filepath.Dir(second.Path())))
	require.Eventually(t, func() bool {
		at, _, err := r.Applied(t.Context())
		return err == nil && at == uint64(len(log))
	}, 5*time.Second, 10*time.Millisecond)
	_, _, err = r.Results(t.Context(), ResultFilter{Page: everything})
	require.True(t, IsCorrupt(err))
	_, _, err = r.Executions(t.Context(), ExecutionFilter{Page: everything})
	require.NoError(t, err)
}

// spoil makes the root of an index of a file that nobody has open into no page at all.
func spoil(t *testing.T, path, index string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, readerParams))
	require.NoError(t, err)
	var root, page int64
	require.NoError(t, db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = ?", index).Scan(&root))
	require.NoError(t, db.QueryRow("PRAGMA page_size").Scan(&page))
	require.NoError(t, db.Close())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, page), (root-1)*page)
	require.NoError(t, errors.Join(err, f.Close()))
}

// A file that is no whole model is not asked, whatever stands in it.
func TestReaderPassesTornFiles(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	apply(t, w, lives(t, 1))
	for slot, content := range map[string]string{"slot-7": "", "slot-8": "torn"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, slot), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, slot, modelPrefix()+"00000000.db"), []byte(content), 0o644))
	}
	r := read(t, dir)
	at, _, err := r.Applied(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, len(lives(t, 1)), at)
}

// While a writer writes, every query sees whole batches, and never an older one than the query before.
func TestReaderBesideWriter(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 60)
	w := open(t, dir)
	r := read(t, dir)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for last := uint64(0); ; {
				at, _, err := r.Applied(t.Context())
				if errors.Is(err, ErrNoModel) {
					continue
				}
				if err != nil || at < last {
					t.Errorf("applied %d after %d: %v", at, last, err)
					return
				}
				last = at
				found, _, err := r.Executions(t.Context(), ExecutionFilter{Page: Page{Limit: 5}})
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range found {
					if n := e.Totals.ExpectedCount(); n != e.TargetCount {
						t.Errorf("exec %s: %d targets, totals over %d", e.ExecID, e.TargetCount, n)
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for n := 0; n < len(log); n += 12 {
		apply(t, w, log[n:min(n+12, len(log))])
	}
	close(done)
	readers.Wait()
	require.NoError(t, r.WaitFor(within(t, time.Second), log[len(log)-1].Seq))
	_, err := r.Execution(t.Context(), "nope")
	require.ErrorIs(t, err, ErrNotFound)
}

// A file that takes another one's place is asked only when it holds what was answered from that.
func TestReaderStaysUntilTheNewFileIsAsFar(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 4)
	old := open(t, dir)
	apply(t, old, log[:36])
	r := read(t, dir)
	applied := func() uint64 {
		t.Helper()
		_, err := r.slot(t.Context(), true)
		require.NoError(t, err)
		at, _, err := r.Applied(t.Context())
		require.NoError(t, err)
		return at
	}
	require.EqualValues(t, 36, applied())

	next, err := old.slot.Build(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, next.Close()) })
	apply(t, next, log[:24])
	require.NoError(t, next.Serve(t.Context()))
	require.EqualValues(t, 36, applied())
	copies, err := r.Slots(t.Context())
	require.NoError(t, err)
	require.Len(t, copies, 1, "the one that was served last")
	require.Equal(t, next.Path(), copies[0].File)
	require.True(t, copies[0].Asked, "its slot is")

	apply(t, next, log[:36])
	require.EqualValues(t, 36, applied())
	apply(t, next, log[:48])
	require.EqualValues(t, 48, applied())

	require.NoError(t, old.slot.Keep(next))
	require.EqualValues(t, 48, applied())
}

// Where the file that was asked is gone, the best of the others is asked, however far it is.
func TestReaderGoesBackWhereNothingElseIsLeft(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 4)
	first, second := open(t, dir), open(t, dir)
	apply(t, first, log[:48])
	apply(t, second, log[:24])
	r := read(t, dir)
	require.NoError(t, r.WaitFor(within(t, 5*time.Second), 48))
	require.NoError(t, first.Remove())
	for range 2 {
		_, err := r.slot(t.Context(), true)
		require.NoError(t, err)
		at, _, err := r.Applied(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 24, at)
	}
	apply(t, second, log[:30])
	at, _, err := r.Applied(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 30, at)
}

// An answer that was on its way while the reader moved to another file is asked for again there: that one may be behind it.
func TestReaderMovesWhileAnAnswerIsOnItsWay(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 4)
	first, second := open(t, dir), open(t, dir)
	apply(t, first, log[:24])
	r := read(t, dir)
	_, from, err := ask(t.Context(), r, scanCheckpoint, checkpoints.all())
	require.NoError(t, err)
	ok, err := r.answers(t.Context(), from, 24)
	require.NoError(t, err)
	require.True(t, ok)
	apply(t, second, log[:36])
	_, err = r.slot(t.Context(), true)
	require.NoError(t, err)
	apply(t, first, log[:48])
	ok, err = r.answers(t.Context(), from, 48)
	require.NoError(t, err)
	require.False(t, ok)
	at, _, err := r.Applied(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 36, at)
}

// While one reader's look at the files waits for SQLite, the others wait no longer than they may.
func TestReaderWaitsNoLongerThanItsContext(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	apply(t, w, lives(t, 1))
	require.NoError(t, r.turn.Acquire(t.Context(), 1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, _, err := r.Applied(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	r.turn.Release(1)
	_, _, err = r.Applied(t.Context())
	require.NoError(t, err)
}
