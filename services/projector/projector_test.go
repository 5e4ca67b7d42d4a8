package projector

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/process"
	"kanade/libs/readmodel"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envBroker); dir != "" {
		serveBroker(dir)
		return
	}
	bustest.Main(m)
}

// start runs a projector and gives what stops it; stopping checks how Run ended.
func start(t *testing.T, b *bus.Bus, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Config{ReadModelDir: dir}, Deps{Bus: b, Logger: bustest.Logger(t)}) }()
	return func() {
		t.Helper()
		cancel()
		require.NoError(t, <-ended)
	}
}

func read(t *testing.T, dir string) *readmodel.Reader {
	t.Helper()
	r, err := readmodel.OpenReader(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func waitFor(t *testing.T, r *readmodel.Reader, seq uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, r.WaitFor(ctx, seq))
}

func event(t testing.TB, p events.Payload, traceParent string) events.Event {
	t.Helper()
	body, err := json.Marshal(p)
	require.NoError(t, err)
	e, err := events.New(p, events.Meta{
		ID: events.DeriveID(p.EventType(), string(body)), Source: "/kanade/test", Time: time.Now().UTC(), Actor: "user:op", TraceParent: traceParent,
	})
	require.NoError(t, err)
	return e
}

func add(t testing.TB, b *bus.Bus, payloads ...events.Payload) (last uint64) {
	t.Helper()
	for _, p := range payloads {
		var err error
		last, err = b.Append(t.Context(), event(t, p, ""), bus.Any)
		require.NoError(t, err)
	}
	return last
}

func requested(exec string) events.ExecRequested {
	return events.ExecRequested{ExecID: exec, JobID: "hello", Version: "1", Plan: json.RawMessage(`{}`)}
}

// Rows follow the log within milliseconds, across restarts of the broker and of the projector.
func TestProject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := bustest.Broker(t)
		b, dir := bustest.Connect(t, broker), t.TempDir()
		r := read(t, dir)
		stop := start(t, b, dir)
		waitFor(t, r, add(t, b, requested("e1")))

		began := time.Now()
		waitFor(t, r, add(t, b, events.ExecClosed{ExecID: "e1", Outcome: events.OutcomeFailed}))
		require.Less(t, time.Since(began), 10*time.Millisecond)

		bustest.Restart(t, broker, time.Minute)
		waitFor(t, r, add(t, b, requested("e2")))
		stop()

		last := add(t, b, requested("e3"))
		_, err := r.Execution(t.Context(), "e3")
		require.ErrorIs(t, err, readmodel.ErrNotFound)
		stop = start(t, b, dir)
		defer func() { stop() }()
		waitFor(t, r, last)
		found, _, err := r.Executions(t.Context(), readmodel.ExecutionFilter{Page: readmodel.Page{Limit: readmodel.All}})
		require.NoError(t, err)
		require.Len(t, found, 3)

		require.NoError(t, b.Conn().Publish("heartbeat.pc-01", []byte(`{"pc_id":"pc-01","at":"2026-11-23T17:40:52Z","agent_version":"1"}`)))
		require.Eventually(t, func() bool {
			a, err := r.Agent(t.Context(), "pc-01")
			return err == nil && time.Since(a.HeardAt) < time.Minute
		}, time.Minute, 10*time.Millisecond)
	})
}

// While no messages wait, outputs become searchable, and after a restart those that were not.
func TestProjectWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		r := read(t, dir)
		said := func(n int) uint64 { return saidNothing(t, b, n) }
		searchable := func(last uint64) { searchable(t, r, last) }
		stop := start(t, b, dir)
		searchable(said(1))
		stop()
		w, err := readmodel.OpenWriter(t.Context(), dir) // one that is killed before it has written words
		require.NoError(t, err)
		last := said(2)
		stored, ok, err := b.Get(t.Context(), events.StreamLog, last)
		require.NoError(t, err)
		require.True(t, ok)
		_, err = w.Apply(t.Context(), events.StreamLog, []readmodel.Message{readmodel.Message(stored)})
		require.NoError(t, err)
		require.NoError(t, w.Close())
		stop = start(t, b, dir)
		defer func() { stop() }()
		searchable(last)
		words, err := readmodel.ParseWords("nothing")
		require.NoError(t, err)
		found, _, err := r.Results(t.Context(), readmodel.ResultFilter{Words: words, Page: readmodel.Page{Limit: 10}})
		require.NoError(t, err)
		require.Len(t, found, 2)
	})
}

// saidNothing is the end of a run with an output, in the log.
func saidNothing(t *testing.T, b *bus.Bus, n int) uint64 {
	t.Helper()
	at := time.Now().UTC()
	run := events.Run{PCID: "pc-01", ExecID: "e1", RequestID: strconv.Itoa(n), ResultID: strconv.Itoa(n), JobID: "hello", Version: "1"}
	return add(t, b, events.RunFinished{
		Run: run, StartedAt: at, FinishedAt: at, State: events.StateSucceeded, Stdout: events.Output{Text: "nothing to do"},
	})
}

func searchable(t *testing.T, r *readmodel.Reader, last uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		n, err := r.Searched(t.Context())
		return err == nil && n == last
	}, time.Minute, time.Millisecond)
}

// Damage that is met where outputs become searchable, not where facts are applied, is mended as any other.
func TestDamagedWordsAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		r := read(t, dir)
		stop := start(t, b, dir)
		defer func() { stop() }()
		searchable(t, r, saidNothing(t, b, 1))
		before := filesOf(t, dir)
		tamper(t, dir, "UPDATE result_words_data SET block = x'00'")
		last := saidNothing(t, b, 2)
		time.Sleep(time.Minute)
		require.NotEqual(t, before, filesOf(t, dir))
		searchable(t, r, last)
		words, err := readmodel.ParseWords("nothing")
		require.NoError(t, err)
		found, _, err := r.Results(t.Context(), readmodel.ResultFilter{Words: words, Page: readmodel.Page{Limit: 10}})
		require.NoError(t, err)
		require.Len(t, found, 2)
	})
}

// A projector that finds no streams yet waits for them.
func TestProjectBeforeStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Dial(t, bustest.Broker(t)), t.TempDir()
		stop := start(t, b, dir)
		defer stop()
		time.Sleep(time.Hour)
		require.NoError(t, b.Ensure(t.Context(), bustest.Limits()))
		waitFor(t, read(t, dir), add(t, b, requested("e1")))
	})
}

// What can't be decoded is in DEAD once, with the reason, also after the model was built anew.
func TestPoisonIsParkedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "results.x", Data: []byte("poison")})
		require.NoError(t, err)
		last := add(t, b, requested("e1"))
		for i := range 2 {
			model := filepath.Join(dir, fmt.Sprint(i))
			stop := start(t, b, model)
			waitFor(t, read(t, model), last)
			stop()
			time.Sleep(time.Hour) // longer than the broker remembers message ids
		}
		n, err := b.LastSeq(t.Context(), events.StreamDead)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		m, ok, err := b.LastRaw(t.Context(), events.StreamDead, "dead.projector.>")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "dead.projector.LOG.1", m.Subject)
		require.Equal(t, "poison", string(m.Data))
		require.NotEmpty(t, m.Header[bus.HeaderDeadReason])
	})
}

// Another log than the one that was read is refused, and the error says what to do; doing it helps.
func TestProjectAnotherLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		stop := start(t, b, dir)
		waitFor(t, read(t, dir), add(t, b, requested("e1"), requested("e2")))
		stop()
		for name, events := range map[string][]events.Payload{
			"empty":                  {},
			"shorter":                {requested("e1")},
			"of the same length":     {requested("e3"), requested("e4")},
			"grown past the old one": {requested("e3"), requested("e4"), requested("e5")},
		} {
			other := bustest.Connect(t, bustest.Broker(t))
			add(t, other, events...)
			err := Run(t.Context(), Config{ReadModelDir: dir}, Deps{Bus: other, Logger: bustest.Logger(t)})
			var reset *bus.LogReset
			require.ErrorAs(t, err, &reset, name)
			require.ErrorContains(t, err, "with --rebuild", name)
		}
		// It keeps the old state for readers until the new one is there.
		other := bustest.Connect(t, bustest.Broker(t))
		last := add(t, other, requested("e3"), requested("e4"), requested("e5"))
		r := read(t, dir)
		_, err := r.Execution(t.Context(), "e1")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Config{ReadModelDir: dir, Rebuild: true}, Deps{Bus: other, Logger: bustest.Logger(t)})
		}()
		waitFor(t, r, last)
		time.Sleep(2 * replacedAfter)
		cancel()
		require.NoError(t, <-ended)
		_, err = r.Execution(t.Context(), "e1")
		require.ErrorIs(t, err, readmodel.ErrNotFound)
		files, err := filepath.Glob(filepath.Join(dir, "slot-0", "*.db"))
		require.NoError(t, err)
		require.Len(t, files, 1)
	})
}

func TestProjectPrunedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		stop := start(t, b, dir)
		waitFor(t, read(t, dir), add(t, b, requested("e1")))
		stop()
		add(t, b, requested("e2"), requested("e3"))
		log, err := b.JetStream().Stream(t.Context(), events.StreamLog)
		require.NoError(t, err)
		require.NoError(t, log.Purge(t.Context()))
		err = Run(t.Context(), Config{ReadModelDir: dir}, Deps{Bus: b, Logger: bustest.Logger(t)})
		var pruned *bus.LogPruned
		require.ErrorAs(t, err, &pruned)
		require.ErrorContains(t, err, "--rebuild")
	})
}

func TestProbes(t *testing.T) {
	b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{ReadModelDir: dir}, Deps{Bus: b, Listener: l, Logger: bustest.Logger(t)})
	}()
	waitFor(t, read(t, dir), add(t, b, requested("e1")))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string) {
		answer, err := client.Get("http://" + l.Addr().String() + path)
		require.NoError(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(body)
	}
	status, body := get("/readyz")
	require.Equal(t, http.StatusOK, status, body)
	var positions []position
	require.NoError(t, json.Unmarshal([]byte(body), &positions))
	require.Len(t, positions, 2)
	at := positions[0]
	require.Regexp(t, `slot-0.model-`+readmodel.SchemaID()+`-\w+\.db$`, at.File)
	require.Less(t, at.AgeSecs+at.StillSecs, 60.0)
	at.File, at.AgeSecs, at.StillSecs = "", 0, 0
	require.Equal(t, position{Slot: "slot-0", Served: true, Stream: events.StreamLog, Applied: 1}, at)
	_, body = get("/metrics")
	require.Contains(t, body, `kanade_projector_applied_sequence{slot="slot-0",stream="LOG"} 1`)
	require.Contains(t, body, `kanade_projector_lag_messages{slot="slot-0",stream="LOG"} 0`)
	for _, name := range []string{"age", "still"} {
		require.Regexp(t, `kanade_projector_`+name+`_seconds\{slot="slot-0",stream="LOG"\} \d`, body)
		require.Contains(t, body, `kanade_projector_`+name+`_seconds{slot="slot-0",stream="PRESENCE"} NaN`)
	}
	require.NoError(t, process.Healthcheck(t.Context(), l.Addr().String()))
	http.DefaultClient.CloseIdleConnections()
	cancel()
	require.NoError(t, <-ended)
	require.Error(t, process.Healthcheck(t.Context(), l.Addr().String()))
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	err = Run(t.Context(), Config{ReadModelDir: t.TempDir(), Listen: l.Addr().String()}, Deps{})
	require.ErrorContains(t, err, "KANADE_PROJECTOR_LISTEN")
}

// The trace of a request ends with a span of the transaction that made its row, whatever row it is: the exec's own or
// that of a run.
func TestTraceReachesTheRow(t *testing.T) {
	const (
		traceID = "0af7651916cd43dd8448eb211c80319c"
		parent  = "00-" + traceID + "-b7ad6b7169203331-01"
	)
	spans := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	defer otel.SetTracerProvider(before)
	b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
	stop := start(t, b, dir)
	run := events.Run{PCID: "pc-01", ExecID: "e1", RequestID: "q1", ResultID: "r1", JobID: "hello", Version: "1"}
	for _, p := range []events.Payload{
		requested("e1"), events.RunReceived{Run: run}, events.RunFinished{Run: run, State: events.StateSucceeded},
	} {
		seq, err := b.Append(t.Context(), event(t, p, parent), bus.Any)
		require.NoError(t, err)
		waitFor(t, read(t, dir), seq)
	}
	waitFor(t, read(t, dir), add(t, b, requested("untraced")))
	stop()
	var names []string
	for _, s := range spans.Ended() {
		if s.SpanContext().TraceID().String() == traceID && s.InstrumentationScope().Name == "kanade/services/projector" {
			require.Equal(t, "b7ad6b7169203331", s.Parent().SpanID().String())
			names = append(names, s.Name())
		}
	}
	require.Equal(t, []string{
		"project events.exec.e1.requested", "project events.run.pc-01.received", "project events.run.pc-01.finished",
	}, names)
}

// Starting and stopping at any moment leaves nothing behind. The broker is stopped before that is looked at: it keeps
// for some seconds the consumer whose creation was cut short.
func TestRunStress(t *testing.T) {
	before := goleak.IgnoreCurrent()
	broker := bustest.Broker(t)
	b, dir := bustest.Connect(t, broker), t.TempDir()
	add(t, b, requested("e1"))
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(20_000))*time.Microsecond)
				if err := Run(ctx, Config{ReadModelDir: dir}, Deps{Bus: b, Logger: bustest.Logger(t)}); err != nil {
					t.Errorf("run: %v", err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	b.Close()
	broker.Shutdown()
	require.NoError(t, goleak.Find(before, bustest.Ignore()))
}

// long skips a test that takes long where only short ones are asked for, as beside the race detector.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long: run it without -short")
	}
}
