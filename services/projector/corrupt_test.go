package projector

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// damage spoils a file that nobody has open, and says how.
func damage(t *testing.T, path string, random *rand.Rand) string {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	const page = 4096
	at := random.Int64N(info.Size()/page) * page
	garbage := make([]byte, page)
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	switch random.IntN(4) {
	case 0:
		require.NoError(t, f.Truncate(at))
		return fmt.Sprintf("cut at %d of %d", at, info.Size())
	case 1:
		_, err = f.WriteAt(garbage[:100], 0)
		require.NoError(t, err)
		return "another header"
	case 2:
		_, err = f.WriteAt(garbage, at)
		require.NoError(t, err)
		return fmt.Sprintf("page %d is garbage", at/page)
	default:
		_, err = f.WriteAt(make([]byte, page), at)
		require.NoError(t, err)
		return fmt.Sprintf("page %d is empty", at/page)
	}
}

// TestProveCorruptFile spoils the file of a projector that is away, in every way: it is found out at the start, by the next
// message, or by a check, and the file that is served in the end is sound and that of one clean pass. A check mends what is
// damaged unasked, and names rows that differ; what it passes over is a page that nothing uses.
func TestProveCorruptFile(t *testing.T) {
	long(t)
	rounds := 5
	if os.Getenv("KANADE_PROVE") == "full" {
		rounds = 200
	}
	seed := rand.Uint64()
	if text := os.Getenv("KANADE_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		require.NoError(t, err)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	var atOnce, damaged, differing, unused int
	for n := range rounds {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
				stop := start(t, b, dir)
				for i := range 150 {
					id := fmt.Sprint("e", i)
					add(t, b, requested(id), events.ExecPlanned{ExecID: id, Waves: []events.PlannedWave{{Expected: []string{"a", "b", "c"}}}})
				}
				waitOnce(t, dir, 300)
				stop()
				before := filesOf(t, dir)
				how := damage(t, before[0], random)
				stop = start(t, b, dir)
				defer func() { stop() }()
				last := add(t, b, events.ExecClosed{ExecID: fmt.Sprint("e", random.IntN(150)), Outcome: events.OutcomeFailed})
				r := read(t, dir)
				waitFor(t, r, last)
				other := filesOf(t, dir)[0] != before[0]
				found := ask(t, b, false, how, 1)[0]
				switch {
				case other:
					atOnce++
					require.Empty(t, found.Error, how)
					require.Empty(t, found.Differing, how)
				case found.Error != "":
					damaged++
					require.True(t, found.Rebuilt, "%s: %s", how, found.Error)
				case len(found.Differing) > 0:
					differing++
					require.True(t, ask(t, b, true, how, 1)[0].Rebuilt, how)
				default:
					unused++
				}
				waitFor(t, r, add(t, b, requested("later")))
				time.Sleep(2 * replacedAfter)
				stop()
				stop = func() {}
				require.Len(t, filesOf(t, dir), 1)
				require.NoError(t, checkFile(t.Context(), filesOf(t, dir)[0]), how)
				clean := t.TempDir()
				stop = start(t, b, clean)
				end, err := b.LastSeq(t.Context(), events.StreamLog)
				require.NoError(t, err)
				waitFor(t, read(t, clean), end)
				require.Equal(t, digestOf(t, filesOf(t, clean)[0]), digestOf(t, filesOf(t, dir)[0]), how)
			})
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("PROVED %s: %d files spoilt, %d found out by themselves, %d damaged and %d with other rows by a check, %d where nothing is, seed %d",
		t.Name(), rounds, atOnce, damaged, differing, unused, seed)
}

// Damage that no row shows is found: an index without its entries makes lists shorter than counts say.
func TestCheckFindsADamagedIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		stop := start(t, b, dir)
		waitOnce(t, dir, add(t, b, requested("e1"), requested("e2")))
		stop()
		before := filesOf(t, dir)[0]
		emptyIndex(t, before, "executions_initiated")

		stop = start(t, b, dir)
		defer func() { stop() }()
		r := read(t, dir)
		waitFor(t, r, add(t, b, requested("e3")))
		require.Equal(t, before, filesOf(t, dir)[0])
		found := ask(t, b, false, "look", 1)[0]
		require.Contains(t, found.Error, "index executions_initiated")
		require.True(t, found.Rebuilt)
		waitFor(t, r, add(t, b, requested("e4")))
		time.Sleep(2 * replacedAfter)
		require.NotEqual(t, before, filesOf(t, dir)[0])
		listed, _, err := r.Executions(t.Context(), readmodel.ExecutionFilter{Page: readmodel.Page{Limit: readmodel.All}})
		require.NoError(t, err)
		require.Len(t, listed, 4)
	})
}

// waitOnce waits with a reader that it closes: whoever closes a file last writes the journal into it.
func waitOnce(t *testing.T, dir string, sequence uint64) {
	t.Helper()
	r, err := readmodel.OpenReader(dir)
	require.NoError(t, err)
	waitFor(t, r, sequence)
	require.NoError(t, r.Close())
}

// emptyIndex takes everything out of an index of one page, in a file that nobody has open.
func emptyIndex(t *testing.T, path, index string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	require.NoError(t, err)
	var root, page int64
	require.NoError(t, db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = ?", index).Scan(&root))
	require.NoError(t, db.QueryRow("PRAGMA page_size").Scan(&page))
	require.NoError(t, db.Close())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	leaf := make([]byte, 8) // the header of a b-tree page: its kind, and where its cells begin; there are none
	_, err = f.ReadAt(leaf[:1], (root-1)*page)
	require.NoError(t, err)
	require.Equal(t, byte(10), leaf[0], "a leaf of an index")
	binary.BigEndian.PutUint16(leaf[5:], uint16(page))
	_, err = f.WriteAt(leaf, (root-1)*page)
	require.NoError(t, errors.Join(err, f.Close()))
}

func digestOf(t *testing.T, path string) map[string]string {
	t.Helper()
	v, err := readmodel.OpenView(context.Background(), path)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	d, err := v.Digest(context.Background())
	require.NoError(t, err)
	return d
}
