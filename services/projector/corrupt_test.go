package projector

import (
	"context"
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
// message, or by a check, and the file that is served in the end is that of one clean pass.
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
	atOnce, byCheck := 0, 0
	for n := range rounds {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
				stop := start(t, b, dir)
				for i := range 150 {
					id := fmt.Sprint("e", i)
					add(t, b, requested(id), events.ExecPlanned{ExecID: id, Waves: []events.PlannedWave{{Expected: []string{"a", "b", "c"}}}})
				}
				waitFor(t, read(t, dir), 300)
				stop()
				before := filesOf(t, dir)
				how := damage(t, before[0], random)
				stop = start(t, b, dir)
				defer func() { stop() }()
				last := add(t, b, events.ExecClosed{ExecID: fmt.Sprint("e", random.IntN(150)), Outcome: events.OutcomeFailed})
				r := read(t, dir)
				waitFor(t, r, last)
				if files := filesOf(t, dir); files[0] == before[0] {
					byCheck++
				} else {
					atOnce++
				}
				found := ask(t, b, true, how, 1)[0]
				require.True(t, found.Rebuilt, "%s: %s", how, found.Error)
				waitFor(t, r, add(t, b, requested("later")))
				time.Sleep(2 * replacedAfter)
				stop()
				stop = func() {}
				require.Len(t, filesOf(t, dir), 1)
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
	t.Logf("PROVED %s: %d files spoilt, %d built anew by themselves, %d by a check, seed %d", t.Name(), rounds, atOnce, byCheck, seed)
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
