package projector

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/process"
	"kanade/libs/readmodel"
)

// gauge reads a gauge or a counter of the stream, or of none.
func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	require.Fail(t, "no metric", name)
	return 0
}

// Files take each other's place while messages come without a pause: no read fails, none is older than one before, and none
// older than the position that was answered before it.
func TestRebuildUnderWritesAndReads(t *testing.T) {
	b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
	stop := start(t, b, dir)
	defer func() { stop() }()
	r := read(t, dir)
	waitFor(t, r, add(t, b, requested("first")))
	done, reads, moves := make(chan struct{}), atomic.Int64{}, 0
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				add(t, b, requested("e"+time.Now().Format(time.RFC3339Nano)))
			}
		}
	})
	for range 3 {
		all.Go(func() {
			for last, newest := uint64(0), uint64(0); ; reads.Add(1) {
				at, _, err := r.Applied(context.Background())
				if err != nil || at < last {
					t.Errorf("applied %d after %d: %v", at, last, err)
					return
				}
				last = at
				found, _, err := r.Executions(context.Background(), readmodel.ExecutionFilter{Page: readmodel.Page{Limit: 1}})
				if err != nil || len(found) == 0 || found[0].Sequence < newest {
					t.Errorf("the exec of %d is gone: %+v: %v", newest, found, err)
					return
				}
				newest = found[0].Sequence
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 4 {
		require.True(t, ask(t, b, true, "under writes and reads", 1)[0].Rebuilt)
		moves++
	}
	close(done)
	all.Wait()
	t.Logf("%d reads, %d files took the place of others", reads.Load(), moves)
}

// Files of another schema go when nobody has fed them for a week, at the start or while the projector runs; they are counted.
func TestOldFilesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "slot-0"), 0o755))
		aged := func(name string, age time.Duration) string {
			path := filepath.Join(dir, "slot-0", name)
			require.NoError(t, os.WriteFile(path, []byte("of another schema"), 0o644))
			require.NoError(t, os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)))
			return path
		}
		long := aged("model-aaaaaaaaaaaa-00000000.db", readmodel.KeptFor)
		short := aged("model-bbbbbbbbbbbb-00000000.db", readmodel.KeptFor-tidyEvery/2)
		registry := prometheus.NewRegistry()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Config{ReadModelDir: dir}, Deps{Bus: b, Logger: bustest.Logger(t), Metrics: registry})
		}()
		time.Sleep(2 * replacedAfter)
		require.NoFileExists(t, long)
		require.FileExists(t, short)
		require.Equal(t, 1.0, gauge(t, registry, "kanade_projector_old_files_removed_total"))
		time.Sleep(tidyEvery)
		require.NoFileExists(t, short)
		require.Equal(t, 2.0, gauge(t, registry, "kanade_projector_old_files_removed_total"))
		require.Len(t, filesOf(t, dir), 1)
		cancel()
		require.NoError(t, <-ended)
	})
}

// A projector that calls itself ready has given readers a file with everything, also where the whole log is shorter than the
// lag that it may have.
func TestReadyMeansServed(t *testing.T) {
	b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
	var last uint64
	for i := range maxLag / 2 {
		last = add(t, b, requested(fmt.Sprint("e", i)))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{ReadModelDir: dir}, Deps{Bus: b, Listener: l, Logger: bustest.Logger(t)})
	}()
	for process.Healthcheck(t.Context(), l.Addr().String()) != nil {
		require.NoError(t, t.Context().Err())
	}
	at, _, err := read(t, dir).Applied(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, at, last)
	cancel()
	require.NoError(t, <-ended)
}

// A projector that was killed between a request and its answer answers when it is back, once, and does not ask who asked
// before it had a file.
func TestRequestIsAnsweredAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		answers := func() (n int) {
			facts, err := b.Load(t.Context(), events.AggregateConfig, events.ReadModelID, 0)
			require.NoError(t, err)
			for _, f := range facts {
				if f.Type == (events.ReadModelChecked{}).EventType() {
					n++
				}
			}
			return n
		}
		add(t, b, events.ReadModelCheckRequested{ID: events.ReadModelID, Reason: "before there was a file"})
		stop := start(t, b, dir)
		time.Sleep(time.Minute)
		require.Zero(t, answers())
		stop()

		last := add(t, b, events.ReadModelCheckRequested{ID: events.ReadModelID, Reason: "in the middle"})
		stored, ok, err := b.Get(t.Context(), events.StreamLog, last)
		require.NoError(t, err)
		require.True(t, ok)
		w, err := readmodel.OpenWriter(t.Context(), dir) // one that is killed after it has heard it
		require.NoError(t, err)
		_, err = w.Apply(t.Context(), events.StreamLog, []readmodel.Message{readmodel.Message(stored)})
		require.NoError(t, err)
		require.NoError(t, w.Close())
		for range 2 {
			stop = start(t, b, dir)
			time.Sleep(time.Minute)
			stop()
			require.Equal(t, 1, answers())
		}
	})
}

// A broker that is away at the start is no hindrance any more when it is back, with no message that says so.
func TestHindranceEndsWithoutAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := bustest.Broker(t)
		b, dir := bustest.Connect(t, broker), t.TempDir()
		stop := start(t, b, dir)
		waitFor(t, read(t, dir), add(t, b, requested("e1")))
		stop()
		broker.Shutdown()
		registry := prometheus.NewRegistry()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Config{ReadModelDir: dir}, Deps{Bus: b, Logger: bustest.Logger(t), Metrics: registry})
		}()
		time.Sleep(time.Minute)
		require.Equal(t, 1.0, gauge(t, registry, "kanade_projector_stalled"))
		require.NoError(t, broker.Restart())
		time.Sleep(time.Minute)
		require.Zero(t, gauge(t, registry, "kanade_projector_stalled"))
		cancel()
		require.NoError(t, <-ended)
	})
}
