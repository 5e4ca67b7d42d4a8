package projector

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// said keeps what a projector logs.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// contains reports whether a line has all of the words.
func (s *said) contains(words ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
lines:
	for line := range strings.Lines(s.text.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return true
	}
	return false
}

// startWith is start with a configuration; it keeps what is logged, too.
func startWith(t *testing.T, b *bus.Bus, c Config) (log *said, stop func()) {
	t.Helper()
	log = &said{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, c, Deps{Bus: b, Logger: slog.New(slog.NewTextHandler(io.MultiWriter(log, t.Output()), nil))})
	}()
	return log, func() {
		t.Helper()
		cancel()
		require.NoError(t, <-ended)
	}
}

// objects are the names in the store of snapshots.
func objects(t testing.TB, b *bus.Bus) (names []string) {
	t.Helper()
	all, err := b.Objects(t.Context(), events.StoreReadModel)
	require.NoError(t, err)
	for _, o := range all {
		names = append(names, o.Name)
	}
	return names
}

func snapshotsBecome(t testing.TB, b *bus.Bus, n int) []string {
	t.Helper()
	require.Eventually(t, func() bool { return len(objects(t, b)) == n }, 2*time.Hour, time.Second, "%d snapshots", n)
	return objects(t, b)
}

// doctored is the newest snapshot with one thing that the log does not say: who begins with it has that.
func doctored(t *testing.T, b *bus.Bus, name string) {
	t.Helper()
	p := &projector{bus: b}
	file := filepath.Join(t.TempDir(), "x.db")
	require.NoError(t, p.get(t.Context(), name, file))
	db, err := sql.Open("sqlite", "file:"+file)
	require.NoError(t, err)
	_, err = db.Exec("UPDATE executions SET job_id = 'doctored'")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.NoError(t, p.put(t.Context(), name, file))
}

func jobOf(t *testing.T, r *readmodel.Reader, exec string) string {
	t.Helper()
	e, err := r.Execution(t.Context(), exec)
	require.NoError(t, err)
	return e.JobID
}

// A projector without a file begins with the newest snapshot; one that rebuilds, that checks, or whose file is damaged does
// not look at it.
func TestBeginWithSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		require.NoError(t, b.Conn().Publish("heartbeat.pc-01", []byte(`{"pc_id":"pc-01","at":"2026-11-23T17:40:52Z","agent_version":"1"}`)))
		for i := range 20 {
			add(t, b, requested(fmt.Sprint("e", i)))
		}
		_, stop := startWith(t, b, Config{ReadModelDir: dir})
		first := snapshotsBecome(t, b, 1)[0]
		require.Contains(t, first, readmodel.SchemaID()+"/20-")
		last := add(t, b, requested("later"))
		time.Sleep(23 * time.Hour)
		require.Len(t, objects(t, b), 1, "it is new enough")
		snapshotsBecome(t, b, 2)
		stop()
		left, err := filepath.Glob(filepath.Join(dir, "slot-0", "*.tmp*"))
		require.NoError(t, err)
		require.Empty(t, left)

		newest := objects(t, b)[1]
		require.Contains(t, newest, fmt.Sprintf("/%d-", last))
		doctored(t, b, newest)
		last = add(t, b, requested("last"))
		other := t.TempDir()
		log, stop := startWith(t, b, Config{ReadModelDir: other})
		r := read(t, other)
		waitFor(t, r, last)
		require.True(t, log.contains("beginning with a snapshot", "sequence=21"))
		require.Equal(t, "doctored", jobOf(t, r, "e3"))
		require.Equal(t, "hello", jobOf(t, r, "last"), "what follows is of the log")
		a, err := r.Agent(t.Context(), "pc-01")
		require.NoError(t, err)
		require.False(t, a.HeardAt.IsZero(), "presence is not in the snapshot, but in its stream")

		found := ask(t, b, true, "is it right?", 1)[0]
		require.Equal(t, map[string]int{"executions": 21}, found.Differing)
		require.True(t, found.Rebuilt)
		time.Sleep(2 * time.Second)
		require.Equal(t, "hello", jobOf(t, r, "e3"), "the log is replayed")
		snapshotsBecome(t, b, 1)      // what was there may be copies of those rows; a new one is made
		require.NoError(t, r.Close()) // before the writer, which takes the journal along then
		stop()

		doctored(t, b, objects(t, b)[0])
		log, stop = startWith(t, b, Config{ReadModelDir: t.TempDir(), Rebuild: true})
		require.Eventually(t, func() bool { return log.contains("serving") }, time.Minute, time.Millisecond)
		require.False(t, log.contains("snapshot"))
		stop()

		files := filesOf(t, other)
		require.NoError(t, os.WriteFile(files[0], []byte("no database at all"), 0o600))
		log, stop = startWith(t, b, Config{ReadModelDir: other})
		defer func() { stop() }()
		require.Eventually(t, func() bool { return log.contains("serving") }, time.Minute, time.Millisecond)
		require.True(t, log.contains("a damaged file was removed"))
		require.False(t, log.contains("beginning with a snapshot"))
		require.Equal(t, "hello", jobOf(t, read(t, other), "e3"))
	})
}

// Whatever is wrong with a snapshot, it is passed over for an older one, and in the end for the log.
func TestBadSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		var stored []time.Time
		for i := range 30 {
			seq := add(t, b, requested(fmt.Sprint("e", i)))
			m, _, err := b.Get(t.Context(), events.StreamLog, seq)
			require.NoError(t, err)
			stored = append(stored, m.Time)
			time.Sleep(time.Second)
		}
		put := func(seq int, at time.Time, content []byte) {
			t.Helper()
			name := snapshotName(readmodel.Checkpoint{Sequence: uint64(seq), At: at})
			require.NoError(t, b.PutObject(t.Context(), events.StoreReadModel, name, bytes.NewReader(content)))
		}
		packed := func(content []byte) []byte {
			var out bytes.Buffer
			require.NoError(t, compress(&out, bytes.NewReader(content)))
			return out.Bytes()
		}
		dir := t.TempDir()
		_, stop := startWith(t, b, Config{ReadModelDir: dir})
		good := snapshotsBecome(t, b, 1)[0]
		stop()
		var whole bytes.Buffer
		_, err := b.ReadObject(t.Context(), events.StoreReadModel, good, &whole)
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), "x.db")
		require.NoError(t, (&projector{bus: b}).get(t.Context(), good, file))
		database, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, b.DeleteObject(t.Context(), events.StoreReadModel, good))

		for i, bad := range [][]byte{
			{}, []byte("no zstd"), whole.Bytes()[:whole.Len()/2], packed(nil), packed([]byte("no database")),
			packed(database[:len(database)/2]), packed(append(bytes.Repeat([]byte{7}, 8192), database[8192:]...)),
			whole.Bytes(), // of another sequence than its name says
		} {
			put(10+i, stored[10+i-1], bad)
		}
		put(25, stored[25-1].Add(time.Second), whole.Bytes()) // of another log
		put(1000, stored[29], whole.Bytes())                  // of a longer log
		begin := func(expected ...string) {
			t.Helper()
			dir := t.TempDir()
			log, stop := startWith(t, b, Config{ReadModelDir: dir, SnapshotEvery: -1})
			defer func() { stop() }()
			r := read(t, dir)
			waitFor(t, r, 30)
			require.Equal(t, "hello", jobOf(t, r, "e0"))
			for seq := range 8 {
				require.True(t, log.contains("can't be used", fmt.Sprintf("/%d-", 10+seq)), "%d", 10+seq)
			}
			require.False(t, log.contains("/25-"), "it is known by its name")
			require.False(t, log.contains("/1000-"))
			require.True(t, log.contains(expected...))
			require.Len(t, filesOf(t, dir), 1)
			left, err := filepath.Glob(filepath.Join(dir, "slot-0", "snapshot*"))
			require.NoError(t, err)
			require.Empty(t, left)
		}
		begin("projecting", "served=false")
		require.NoError(t, b.PutObject(t.Context(), events.StoreReadModel, good, bytes.NewReader(whole.Bytes())))
		parsed, ok := parseSnapshot(bus.ObjectInfo{Name: good})
		require.True(t, ok)
		require.EqualValues(t, 30, parsed.sequence)
		dir = t.TempDir()
		log, stop := startWith(t, b, Config{ReadModelDir: dir, SnapshotEvery: -1})
		waitFor(t, read(t, dir), 30)
		require.True(t, log.contains("beginning with a snapshot", "sequence=30"))
		stop()
	})
}

// A store that is full gives the oldest up.
func TestFullStoreOfSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bustest.Limits()
		l.SnapshotBytes = 400 << 10
		b := bustest.Dial(t, bustest.Broker(t))
		require.NoError(t, b.Ensure(t.Context(), l))
		for i := range 3 {
			require.NoError(t, b.PutObject(t.Context(), events.StoreReadModel, fmt.Sprintf("%s/%d-1", readmodel.SchemaID(), i+1), bytes.NewReader(make([]byte, 132<<10))))
			time.Sleep(time.Second)
		}
		add(t, b, requested("e1"))
		log, stop := startWith(t, b, Config{ReadModelDir: t.TempDir()})
		defer func() { stop() }()
		require.Eventually(t, func() bool { return log.contains("made a snapshot") }, time.Hour, time.Second)
		require.True(t, log.contains("is full", "/1-1"))
		require.NotContains(t, objects(t, b), readmodel.SchemaID()+"/1-1")
	})
}

func TestSuperfluousSnapshots(t *testing.T) {
	day := func(n int, hour int) time.Time {
		return time.Unix(0, 0).Add(time.Duration(n)*snapshotDay + time.Duration(hour)*time.Hour)
	}
	of := func(schema string, days ...[2]int) (all []snapshot) {
		for _, d := range days {
			all = append(all, snapshot{name: fmt.Sprint(schema, d), schema: schema, stored: day(d[0], d[1])})
		}
		return all
	}
	now := day(100, 0) // day 98 begins a week, and 91, 84 …
	require.Empty(t, superfluous(nil, "a", now))
	require.Empty(t, superfluous(of("a", [2]int{99, 1}), "a", now))
	require.Equal(t, []string{"a[98 5]", "a[99 2]"},
		superfluous(of("a", [2]int{98, 1}, [2]int{98, 5}, [2]int{99, 1}, [2]int{99, 2}, [2]int{99, 3}), "a", now),
		"the first of a day stays, and the last of all")
	require.Equal(t, []string{"a[85 1]", "a[90 1]", "a[92 1]"},
		superfluous(of("a", [2]int{84, 1}, [2]int{85, 1}, [2]int{90, 1}, [2]int{91, 1}, [2]int{92, 1}, [2]int{94, 1}, [2]int{95, 1}, [2]int{99, 1}), "a", now),
		"what is older than a week: one a week")
	require.Equal(t, []string{"b[50 1]"},
		superfluous(append(of("a", [2]int{50, 1}), of("b", [2]int{50, 1}, [2]int{95, 1})...), "a", now), "another schema's, when old")

	var kept []snapshot
	for n := range 97 { // as it goes: one a day for as long as the store keeps them
		now := day(n, 3)
		kept = append(kept, of("a", [2]int{n, 3})...)
		gone := superfluous(kept, "a", now)
		rest := kept[:0]
		for _, s := range kept {
			if !strings.Contains(strings.Join(gone, ","), s.name) {
				rest = append(rest, s)
			}
		}
		kept = rest
		for i := 1; i < len(kept); i++ {
			require.LessOrEqual(t, kept[i].stored.Sub(kept[i-1].stored), snapshotWeek)
		}
	}
	require.LessOrEqual(t, len(kept), 22)
	require.Equal(t, day(0, 3), kept[0].stored)
}
