package readmodel

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// besideWindow is how long reads are counted before the writer changes its place.
const besideWindow = 500 * time.Millisecond

// besideBatches of a thousand messages are more than a writer applies in a window.
const besideBatches = 80

// besideQueries is the mix: lists by every leading filter, one page deep in the history, single rows and a count, each once a
// round. Searches by words are left out: while a writer is busy nobody writes words.
func besideQueries(ctx context.Context, r *Reader, execs int) []benchQuery {
	mix := benchQueries(ctx, r, execs)
	return slices.DeleteFunc(mix, func(q benchQuery) bool {
		return slices.Contains([]string{"search", "search-rare", "results-of-exec", "groups-exec"}, q.name) // a thousand rows each
	})
}

// BenchmarkReadsBesideWriter counts reads of a file, by as many readers as there are processors, while a writer applies batches as
// fast as it can: to the same file, to another one just like it, and to none, by turns of half a second. On a machine whose
// processors are all busy readers lose to any work that goes on beside, so of-ceiling, the reads beside the writer of their own
// file over those beside the writer of the other, is what the *file* costs: locks, the write-ahead log, pages that have changed.
// of-idle is the same over the reads beside nobody. A turn without a writer begins with the log written back into the file. events/s
// is what the writer of the same file manages meanwhile.
func BenchmarkReadsBesideWriter(b *testing.B) {
	dir, execs := benchModel(b)
	other := b.TempDir()
	copySlot(b, dir, other)
	own, beside := benchFeed(b, dir, execs), benchFeed(b, other, execs)
	r, err := OpenReader(dir)
	require.NoError(b, err)
	defer func() { require.NoError(b, r.Close()) }()
	mix := besideQueries(context.Background(), r, execs)
	reads, spent := map[*writing]int64{}, map[*writing]time.Duration{}
	var applied int
	for b.Loop() {
		for _, w := range []*writing{own, beside, nil} {
			if w != own {
				own.rest(b)
			}
			stop := w.start(b)
			started := time.Now()
			reads[w] += readAll(b, mix, besideWindow)
			spent[w] += time.Since(started)
			if n := stop(); w == own {
				applied += n
			}
		}
	}
	rate := func(w *writing) float64 { return float64(reads[w]) / spent[w].Seconds() }
	b.ReportMetric(rate(own), "reads/s")
	b.ReportMetric(rate(own)/rate(beside), "of-ceiling")
	b.ReportMetric(rate(own)/rate(nil), "of-idle")
	b.ReportMetric(float64(applied)/spent[own].Seconds(), "events/s")
	b.ReportMetric(0, "ns/op")
}

// readAll asks the queries in turn, by as many goroutines as there are processors, for as long as is given, and counts them.
func readAll(b *testing.B, mix []benchQuery, window time.Duration) int64 {
	var count atomic.Int64
	var readers sync.WaitGroup
	until := time.Now().Add(window)
	for n := range runtime.GOMAXPROCS(0) {
		readers.Go(func() {
			for i := n * len(mix) / 2; time.Now().Before(until); i++ {
				if _, err := mix[i%len(mix)].ours(); err != nil {
					b.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	readers.Wait()
	return count.Load()
}

// writing applies execs that follow those of a model, one a batch.
type writing struct {
	w    *Writer
	exec int
	next uint64
}

func benchFeed(b *testing.B, dir string, execs int) *writing {
	w, err := OpenWriter(b.Context(), dir)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, w.Close()) })
	at, err := w.Checkpoint(events.StreamLog)
	require.NoError(b, err)
	return &writing{w: w, exec: execs, next: at.Sequence + 1}
}

// start applies batches until it is told to stop, which gives how many messages those were. Of nil there is no writer.
func (x *writing) start(b *testing.B) (stop func() int) {
	if x == nil {
		return func() int { return 0 }
	}
	var batches [][]Message // made before anybody counts
	for range besideBatches {
		j := &journal{t: b}
		benchExec(j, x.exec)
		x.exec++
		for i := range j.messages {
			j.messages[i].Seq, x.next = x.next, x.next+1
		}
		batches = append(batches, j.messages)
	}
	end, n := make(chan struct{}), 0
	var running sync.WaitGroup
	running.Go(func() {
		for _, batch := range batches {
			select {
			case <-end:
				return
			default:
			}
			if _, err := x.w.Apply(context.Background(), events.StreamLog, batch); err != nil {
				b.Error(err)
				return
			}
			n += len(batch)
		}
	})
	return func() int {
		close(end)
		running.Wait()
		return n
	}
}

// rest writes what the write-ahead log holds into the file, and cuts it.
func (x *writing) rest(b *testing.B) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	_, err := x.w.db.conn.ExecContext(b.Context(), "PRAGMA wal_checkpoint(TRUNCATE)")
	require.NoError(b, err)
}

// copySlot copies the files of a model that nobody has open.
func copySlot(b *testing.B, from, to string) {
	require.NoError(b, os.CopyFS(to, os.DirFS(from)))
	found, err := filepath.Glob(filepath.Join(to, "slot-0", "*.db"))
	require.NoError(b, err)
	require.Len(b, found, 1)
}
