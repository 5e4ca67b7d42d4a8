package projector

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/readmodel"
)

// benchEvents is how many events BenchmarkRebuild and BenchmarkVisible build from: KANADE_BENCH_EVENTS.
func benchEvents(b *testing.B, fallback int) int {
	text := os.Getenv("KANADE_BENCH_EVENTS")
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	require.NoError(b, err)
	return n
}

// benchConnection is a connection to a broker that has all streams.
func benchConnection(b *testing.B, url string) *bus.Bus {
	connection, err := bus.Connect(b.Context(), bus.Config{URL: url, Token: bustest.Token, Name: "bench"})
	require.NoError(b, err)
	b.Cleanup(connection.Close)
	require.NoError(b, connection.Ensure(b.Context(), bustest.Limits()))
	return connection
}

// envBroker is the directory of a broker that this program is to be, instead of tests.
const envBroker = "KANADE_TEST_BROKER"

// brokerProcess is the embedded broker in a process of its own: it keeps the ids of what was published lately, and blocks of
// files, which are not the projector's memory.
func brokerProcess(b *testing.B) (url string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), envBroker+"="+b.TempDir()), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		require.NoError(b, in.Close())
		require.NoError(b, cmd.Wait())
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(line)
}

// serveBroker is the other side: it says its address, and ends with its input.
func serveBroker(dir string) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	server, err := broker.Start(broker.Config{StoreDir: dir, Listen: "127.0.0.1:0", Token: bustest.Token, Logger: logger})
	if err != nil {
		panic(err)
	}
	defer server.Shutdown()
	fmt.Println(server.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// BenchmarkRebuild builds a read model from the whole log of a broker, 1 000 000 events (KANADE_BENCH_EVENTS) as BenchmarkProject
// mixes them, and then writes the same rows in raw batches, under the program's GCPercent. of-ceiling is the raw time over ours.
// MB is the most heap in use meanwhile, garbage included, and MB-at-tenth the most until a tenth of the time had gone; live-MB is
// the most that the collector found alive. SQLite's memory, of which the cache is at most 64 MiB, is not on this heap.
func BenchmarkRebuild(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(GCPercent))
	connection := benchConnection(b, brokerProcess(b))
	last := benchFill(b, connection, 0, (benchEvents(b, 1_000_000)+3*benchPCs+4)/(3*benchPCs+5))
	var ours, raw time.Duration
	var heap heapSeen
	n := 0
	for b.Loop() {
		dir := b.TempDir()
		watch := watchHeap()
		started := time.Now()
		benchProject(b, connection, Config{ReadModelDir: dir, SnapshotEvery: -1}, last)
		ours += time.Since(started)
		heap = heap.max(watch())
		b.StopTimer()
		raw += benchRaw(b, dir, int(last)/benchBatch)
		n++
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(last)/ours.Seconds(), "events/s")
	b.ReportMetric(raw.Seconds()/ours.Seconds(), "of-ceiling")
	b.ReportMetric(heap.peak, "MB")
	b.ReportMetric(heap.tenth, "MB-at-tenth")
	b.ReportMetric(heap.live, "live-MB")
}

// heapSeen is the most that was seen of the heap, in MB.
type heapSeen struct{ peak, tenth, live float64 }

func (h heapSeen) max(o heapSeen) heapSeen {
	return heapSeen{max(h.peak, o.peak), max(h.tenth, o.tenth), max(h.live, o.live)}
}

// watchHeap looks at the heap every hundredth of a second until it is asked for what it saw.
func watchHeap() func() heapSeen {
	debug.FreeOSMemory() // what is left of whoever ran before is not ours
	stop := make(chan struct{})
	var used, live []float64
	var watching sync.WaitGroup
	watching.Go(func() {
		sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			runtimemetrics.Read(sample)
			used, live = append(used, float64(sample[0].Value.Uint64())/1e6), append(live, float64(sample[1].Value.Uint64())/1e6)
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return func() heapSeen {
		close(stop)
		watching.Wait()
		return heapSeen{slices.Max(used), slices.Max(used[:max(1, len(used)/10)]), slices.Max(live)}
	}
}

// BenchmarkVisible measures from the append of a fact until a Reader sees it, as a read that names its sequence does, while nothing
// else happens: p50-ms and p99-ms. ack-ms is the part of the median that the broker's acknowledgement takes. Behind it the log
// holds KANADE_BENCH_EVENTS events (30 500).
func BenchmarkVisible(b *testing.B) {
	connection, dir := benchConnection(b, benchBroker(b)), b.TempDir()
	benchFill(b, connection, 0, max(1, benchEvents(b, 30_500)/(3*benchPCs+5)))
	stop := benchRun(b, connection, Config{ReadModelDir: dir, SnapshotEvery: -1})
	defer stop()
	r, err := readmodel.OpenReader(dir)
	require.NoError(b, err)
	defer func() { require.NoError(b, r.Close()) }()
	require.NoError(b, r.WaitFor(b.Context(), add(b, connection, requested("first"))))
	var acks, all []time.Duration
	for b.Loop() {
		fact := requested(strconv.Itoa(len(all)))
		started := time.Now()
		seq := add(b, connection, fact)
		acks = append(acks, time.Since(started))
		require.NoError(b, r.WaitFor(b.Context(), seq))
		all = append(all, time.Since(started))
	}
	milliseconds := func(d []time.Duration, share float64) float64 {
		slices.Sort(d)
		return float64(d[int(math.Ceil(share*float64(len(d))))-1].Microseconds()) / 1000
	}
	b.ReportMetric(milliseconds(all, 0.5), "p50-ms")
	b.ReportMetric(milliseconds(all, 0.99), "p99-ms")
	b.ReportMetric(milliseconds(acks, 0.5), "ack-ms")
	b.ReportMetric(0, "ns/op")
}
