package readmodel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// ofAnother makes a closed file of the slot one of another schema.
func ofAnother(t testing.TB, w *Writer, schema string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(w.Path()), "model-"+schema+"-"+filepath.Base(w.Path())[len(modelPrefix()):])
	require.NoError(t, w.Close())
	require.NoError(t, os.Rename(w.Path(), path))
	return path
}

// Files of other schemas go when nobody has fed them for a week, with what is beside them; everything else stays.
func TestTidy(t *testing.T) {
	slot, err := ClaimSlot(t.TempDir(), events.Retain{})
	require.NoError(t, err)
	defer func() { require.NoError(t, slot.Close()) }()
	build := func() *Writer {
		w, err := slot.Build(t.Context())
		require.NoError(t, err)
		return w
	}
	now := time.Now()
	aged := func(path string, age time.Duration) string {
		require.NoError(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
		return path
	}
	write := func(path string) string {
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
		return path
	}
	old := aged(ofAnother(t, build(), "aaaaaaaaaaaa"), KeptFor)
	journal := aged(write(old+"-wal"), KeptFor)
	fresh := aged(ofAnother(t, build(), "bbbbbbbbbbbb"), KeptFor-time.Minute)
	written := aged(ofAnother(t, build(), "cccccccccccc"), 2*KeptFor)
	write(written + "-wal") // nobody has carried it over yet
	other := aged(write(filepath.Join(slot.Path(), "model.db")), 2*KeptFor)

	live, own := build(), build()
	defer func() { require.NoError(t, live.Close()) }()
	require.NoError(t, own.Close())
	aged(own.Path(), 2*KeptFor)
	aged(live.Path(), 2*KeptFor)
	removed, err := slot.Tidy(live, now)
	require.NoError(t, err)
	require.Equal(t, []string{old}, removed)
	require.NoFileExists(t, old)
	require.NoFileExists(t, journal)
	for _, path := range []string{fresh, written, written + "-wal", other, own.Path(), live.Path()} {
		require.FileExists(t, path)
	}
	require.WithinDuration(t, now, lastFed(live.Path()), time.Second, "it says when it was fed, with no message at all")
	removed, err = slot.Tidy(live, now.Add(KeptFor+time.Minute))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{fresh, written}, removed)
}

// Of the free slots, one that has a file of this schema comes first: projectors of two versions that are started again, in
// whatever order, go on with the files that they had.
func TestClaimSlotWithAFileOfThisSchema(t *testing.T) {
	dir := t.TempDir()
	first, second := open(t, dir), open(t, dir)
	require.True(t, strings.HasSuffix(filepath.Dir(first.Path()), "slot-0"))
	ofAnother(t, first, "aaaaaaaaaaaa")
	require.NoError(t, second.Close())
	again := open(t, dir)
	require.Equal(t, second.Path(), again.Path())
	third := open(t, dir)
	require.Equal(t, filepath.Dir(first.Path()), filepath.Dir(third.Path()))
}

// A file that has replaced another one, and was not as far when its projector was killed, does not take that one away.
func TestContinueLeavesWhatWasServedBefore(t *testing.T) {
	dir, log := t.TempDir(), lives(t, 4)
	old := open(t, dir)
	slot := old.slot
	apply(t, old, log[:36])
	next, err := slot.Build(t.Context())
	require.NoError(t, err)
	apply(t, next, log[:24])
	require.NoError(t, next.Serve(t.Context()))
	broken, err := slot.Build(t.Context())
	require.NoError(t, err)
	require.NoError(t, broken.Close())
	require.NoError(t, next.Close())
	r := read(t, dir)
	require.NoError(t, r.WaitFor(within(t, time.Second), 24))
	require.NoError(t, old.Close())

	w := open(t, dir)
	require.Equal(t, next.Path(), w.Path())
	require.FileExists(t, old.Path())
	require.NoFileExists(t, broken.Path())
}
