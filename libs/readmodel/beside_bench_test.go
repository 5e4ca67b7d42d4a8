package readmodel

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
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

// envBeside names, for a process of its own, the two directories that it writes to.
const envBeside = "KANADE_READMODEL_BESIDE"

// besideQueries is the mix: lists by every leading filter, one page deep in the history, single rows and a count, each once a
// round. Searches by words are left out: while a writer is busy nobody writes words.
func besideQueries(ctx context.Context, r *Reader, execs int) []benchQuery {
	mix := benchQueries(ctx, r, execs)
	return slices.DeleteFunc(mix, func(q benchQuery) bool {
		return strings.HasPrefix(q.name, "search") || slices.Contains([]string{"results-of-exec", "groups-exec"}, q.name) // a thousand rows each
	})
}

// BenchmarkReadsBesideWriter counts reads of a file, by as many readers as a writer leaves processors for, while a writer in a
// process of its own, as a projector is, applies batches as fast as it can: to the same file, to another one just like it, and to
// none, by turns of half a second. of-idle is the reads beside the writer over those beside nobody. of-ceiling is the reads beside
// the writer of their own file over those beside the writer of the other: what the *file* costs, locks, the write-ahead log, pages
// that have changed, and not what two who share a machine's memory and caches cost each other. Both are medians of the turns. A
// turn without a writer of the file begins with the log written back into it. events/s is what the writer of the same file
// manages meanwhile.
func BenchmarkReadsBesideWriter(b *testing.B) {
	dir, execs := benchModel(b)
	other := b.TempDir()
	copySlot(b, dir, other)
	w := startBeside(b, dir, other)
	r, err := OpenReader(dir)
	require.NoError(b, err)
	defer func() { require.NoError(b, r.Close()) }()
	mix := besideQueries(context.Background(), r, execs)
	turn := func(to string) (reads float64, applied int) {
		if to != "own" {
			w.say(b, "rest")
		}
		if to != "none" {
			w.say(b, to)
			defer func() {
				n, err := strconv.Atoi(w.say(b, "stop"))
				require.NoError(b, err)
				applied = n
			}()
		}
		return readAll(b, mix, besideWindow), 0
	}
	var rates, ofCeiling, ofIdle, written []float64
	for b.Loop() {
		mine, applied := turn("own")
		ceiling, _ := turn("other")
		idle, _ := turn("none")
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

// besideProcess is a process that writes when it is told to.
type besideProcess struct {
	in  io.Writer
	out *bufio.Scanner
}

func startBeside(b *testing.B, own, other string) *besideProcess {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envBeside+"="+own+string(filepath.ListSeparator)+other)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		require.NoError(b, in.Close())
		require.NoError(b, cmd.Wait())
	})
	return &besideProcess{in, bufio.NewScanner(out)}
}

// say gives an order and waits for the answer.
func (x *besideProcess) say(b *testing.B, order string) string {
	_, err := fmt.Fprintln(x.in, order)
	require.NoError(b, err)
	require.True(b, x.out.Scan(), order)
	return x.out.Text()
}

// writeBeside obeys orders: "own" and "other" begin to apply execs that follow those of that model, one a batch, "stop" ends that and
// says how many messages those were; "rest" writes what the write-ahead log of the first holds into the file, and cuts it.
func writeBeside(dirs string) {
	own, other, _ := strings.Cut(dirs, string(filepath.ListSeparator))
	feeds := map[string]*besideFeed{"own": newBesideFeed(own), "other": newBesideFeed(other)}
	var stop func() int
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		switch order := orders.Text(); order {
		case "stop":
			fmt.Println(stop())
		case "rest":
			feeds["own"].rest()
			fmt.Println("done")
		default:
			stop = feeds[order].start()
			fmt.Println("begun")
		}
	}
	for _, x := range feeds {
		must(x.w.Close())
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// besideFeed applies execs that follow those of a model.
type besideFeed struct {
	w    *Writer
	exec int
	next uint64
}

func newBesideFeed(dir string) *besideFeed {
	w, err := OpenWriter(context.Background(), dir)
	must(err)
	at, err := w.Checkpoint(events.StreamLog)
	must(err)
	return &besideFeed{w: w, exec: int(at.Sequence)/(4+benchFleet) + 1, next: at.Sequence + 1}
}

// start applies batches until it is told to stop, which gives how many messages those were.
func (x *besideFeed) start() (stop func() int) {
	var batches [][]Message // made before anybody counts
	for range besideBatches {
		j := &journal{t: panics{}}
		benchExec(j, x.exec)
		x.exec++
		for i := range j.messages {
			j.messages[i].Seq, x.next = x.next, x.next+1
		}
		batches = append(batches, j.messages)
	}
	runtime.GC()
	end, n := make(chan struct{}), 0
	var running sync.WaitGroup
	running.Go(func() {
		for _, batch := range batches {
			select {
			case <-end:
				return
			default:
			}
			_, err := x.w.Apply(context.Background(), events.StreamLog, batch)
			must(err)
			n += len(batch)
		}
	})
	return func() int {
		close(end)
		running.Wait()
		return n
	}
}

func (x *besideFeed) rest() {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	_, err := x.w.db.conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
	must(err)
}

// copySlot copies the files of a model that nobody has open.
func copySlot(b *testing.B, from, to string) {
	require.NoError(b, os.CopyFS(to, os.DirFS(from)))
	found, err := filepath.Glob(filepath.Join(to, "slot-0", "*.db"))
	require.NoError(b, err)
	require.Len(b, found, 1)
}
