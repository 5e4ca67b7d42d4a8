package readmodel

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func view(t testing.TB, w *Writer) *View {
	t.Helper()
	v, err := OpenView(t.Context(), w.Path())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

// A view stays what it was, and a comparison names every row that differs.
func TestCompare(t *testing.T) {
	log := lives(t, 6)
	is, should := open(t, t.TempDir()), open(t, t.TempDir())
	apply(t, is, log[:60])
	apply(t, should, log[:60])
	a, b := view(t, is), view(t, should)
	require.EqualValues(t, 60, a.Sequence)
	apply(t, is, log) // behind the view
	counts, first, err := Compare(t.Context(), a, b, 10)
	require.NoError(t, err)
	require.Empty(t, counts)
	require.Empty(t, first)
	left, err := a.Digest(t.Context())
	require.NoError(t, err)
	require.Equal(t, digest(t, should), left)

	apply(t, should, log)
	for _, damage := range []string{
		"UPDATE targets SET state = 'failed' WHERE pc_id = 'pc-03'", "DELETE FROM results WHERE pc_id = 'pc-05'",
		"INSERT INTO targets SELECT 'zzz', pc_id, state, expected, planned, wave, code, reason, result_id, at, sequence FROM targets WHERE pc_id = 'pc-07' LIMIT 1",
	} {
		_, err := is.db.conn.ExecContext(t.Context(), damage)
		require.NoError(t, err)
	}
	counts, first, err = Compare(t.Context(), view(t, is), view(t, should), 3)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"targets": 7, "results": 6}, counts)
	require.Len(t, first, 3)
	require.Contains(t, first[0].String(), "targets [")
	require.Contains(t, first[0].String(), "pc-03] is [failed")
	counts, first, err = Compare(t.Context(), view(t, is), view(t, should), 100)
	require.NoError(t, err)
	require.Len(t, first, 13)
	require.Contains(t, fmt.Sprint(first), "[zzz pc-07] should not be there")
	require.Contains(t, fmt.Sprint(first), "is missing")
	require.Len(t, counts, 2)
}

// Readers are not given a file that is being built, and of a slot's files the one that was served last. What a rebuild
// that was broken off has left, and what was replaced, goes at the next start.
func TestSlotFollowsGenerations(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 3)
	slot, err := ClaimSlot(dir, events.Retain{})
	require.NoError(t, err)
	old, damaged, err := slot.Continue(t.Context())
	require.NoError(t, err)
	require.NoError(t, damaged)
	r := read(t, dir)
	apply(t, old, log[:24])
	_, _, err = r.Applied(t.Context())
	require.ErrorIs(t, err, ErrNoModel, "it is being built")
	require.NoError(t, old.Close())
	old, _, err = slot.Continue(t.Context())
	require.NoError(t, err)
	require.False(t, old.Served())
	at, err := old.Checkpoint(events.StreamLog)
	require.NoError(t, err)
	require.EqualValues(t, 24, at.Sequence, "what was built is continued")
	require.NoError(t, old.Serve(t.Context()))
	require.NoError(t, r.WaitFor(t.Context(), 24))

	next, err := slot.Build(t.Context())
	require.NoError(t, err)
	apply(t, next, log)
	require.ErrorIs(t, r.WaitFor(within(t, lookAgain+lookAgain/2), 25), ErrBehind)
	broken, err := slot.Build(t.Context())
	require.NoError(t, err)
	require.NoError(t, broken.Close())
	require.NoError(t, next.Serve(t.Context()))
	require.NoError(t, r.WaitFor(within(t, 4*lookAgain), uint64(len(log))))
	require.NoError(t, next.Close())
	require.NoError(t, old.Close())

	w, _, err := slot.Continue(t.Context())
	require.NoError(t, err)
	require.Equal(t, next.Path(), w.Path())
	require.True(t, w.Served())
	files := func() []string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(slot.Path(), "*.db"))
		require.NoError(t, err)
		return found
	}
	require.ElementsMatch(t, []string{old.Path(), w.Path()}, files(), "what was broken off is gone; what was replaced may be further")
	require.NoError(t, slot.Keep(w))
	require.Equal(t, []string{w.Path()}, files())
	require.NoError(t, w.Remove())
	require.NoError(t, slot.Close())
	left, err := os.ReadDir(slot.Path())
	require.NoError(t, err)
	require.Len(t, left, 1, "the lock")
}
