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

// BenchmarkReadsBesideWriter counts reads of a file, by as many readers as a writer leaves processors for, while the writer applies
// batches as fast as it can: to the same file, to another one just like it, and to none, by turns of half a second. of-idle is the
// reads beside the writer over those beside nobody. of-ceiling is the reads beside the writer of their own file over those beside
// the writer of the other: what the *file* costs, locks, the write-ahead log, pages that have changed, and not what two who share a
// machine's caches and collector cost each other. Both are medians of the turns. A turn without a writer of the file begins with
// the log written back into it. events/s is what the writer of the same file manages meanwhile.
func BenchmarkReadsBesideWriter(b *testing.B) {
	dir, execs := benchModel(b)
	other := b.TempDir()
	copySlot(b, dir, other)
	own, beside := benchFeed(b, dir, execs), benchFeed(b, other, execs)
	r, err := OpenReader(dir)
	require.NoError(b, err)
	defer func() { require.NoError(b, r.Close()) }()
	mix := besideQueries(context.Background(), r, execs)
	turn := func(w *writing, to *Writer) (reads float64, applied int) {
		if to != own.w {
			own.rest(b)
		}
		stop := w.start(b, to)
		reads = readAll(b, mix, besideWindow)
		return reads, stop()
	}
	var rates, ofCeiling, ofIdle, written []float64
	for b.Loop() {
		mine, applied := turn(own, own.w)
		ceiling, _ := turn(beside, beside.w)
		idle, _ := turn(beside, nil)
		rates, written = append(rates, mine), append(written, float64(applied)/besideWindow.Seconds())
		ofCeiling, ofIdle = append(ofCeiling, mine/ceiling), append(ofIdle, mine/idle)
	}
	median := func(of []float64) float64 {
		slices.Sort(of)
		return of[len(of)/2]
	}
	b.ReportMetric(median(rates), "reads/s")
	b.ReportMetric(median(ofCeiling), "of-ceiling")
	b.ReportMetric(median(ofIdle), "of-idle")
	b.ReportMetric(median(written), "events/s")
	b.ReportMetric(0, "ns/op")
}

// readAll asks the queries in turn, by one goroutine for each processor but one, for as long as is given: how many a second.
func readAll(b *testing.B, mix []benchQuery, window time.Duration) float64 {
	var count atomic.Int64
	var readers sync.WaitGroup
	started := time.Now()
	until := started.Add(window)
	for n := range max(1, runtime.GOMAXPROCS(0)-1) {
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
	return float64(count.Load()) / time.Since(started).Seconds()
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

// start applies batches to a file until it is told to stop, which gives how many messages those were. Without a file it only
// holds them, so that the collector has the same to do.
func (x *writing) start(b *testing.B, to *Writer) (stop func() int) {
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
			if to == nil {
				break
			}
			select {
			case <-end:
				return
			default:
			}
			if _, err := to.Apply(context.Background(), events.StreamLog, batch); err != nil {
				b.Error(err)
				return
			}
			n += len(batch)
		}
		<-end
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
