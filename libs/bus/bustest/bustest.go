// Package bustest is the test kit of everything that speaks to the broker: a private broker per test, simulated time,
// and the middleware that makes trouble.
//
// Simulated time: inside testing/synctest the broker, the bus and the services run on the bubble's clock, so that ack
// waits, back-off, ages and days of timers pass in milliseconds. What it takes: TestMain calls Main, before any bubble;
// broker and connections are made with the bubble's own *testing.T and closed by its cleanups (Broker and Connect do);
// no TCP and no other process inside; contexts are made inside; tests with bubbles do not run in parallel (forgetTimers
// says why).
//
// Where a stream has a max age (the log has none) the broker judges it by the access-time clock, to which a bubble lies in
// the past: once a message reaches it in the bubble's time, or the stream is changed, all are dropped. A bubble that has slept
// until a year that is still to come, before its broker starts, loses nothing.
package bustest

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"go.uber.org/goleak"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/events"
)

// Token is what brokers of this package demand.
const Token = "test-token"

// Main runs a package's tests; call it from TestMain. It starts the server's access-time clock outside of any bubble:
// file stores share one goroutine that is started by the first of them, and one that was started inside a bubble would
// tick there for ever (TestAccessTimeClock explains). At the end it fails if a goroutine is left.
func Main(m *testing.M) {
	ats.Register()
	goleak.VerifyTestMain(m, Ignore())
}

// Ignore is for goleak in tests with a broker: the access-time clock of Main.
func Ignore() goleak.Option {
	return goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1")
}

// Broker starts a private broker without a network in a directory of the test's own, and stops it at the end. It takes
// about 2 ms; an idle simulated day takes about 0.5 s.
func Broker(t testing.TB) *broker.Broker {
	t.Helper()
	forgetTimers()
	b, err := broker.Start(broker.Config{
		StoreDir: t.TempDir(), Token: Token, Logger: Logger(t),
		// Forcing 25 streams to a real disk every two minutes makes a simulated day six times slower.
		SyncInterval: 10_000 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Shutdown)
	return b
}

// forgetTimers empties the client's pool of timers, which all connections of the process share: a connection that
// flushes (each does when it has reconnected) would take the timer of another bubble, and the runtime ends the process
// for it. Two collections empty a sync.Pool; the pool itself is out of reach. So bubbles with reconnecting clients may
// follow one another, but not run in parallel.
func forgetTimers() {
	runtime.GC()
	runtime.GC()
}

// Connect opens a bus on the broker with all streams ensured, and closes it at the end.
func Connect(t testing.TB, b *broker.Broker) *bus.Bus {
	t.Helper()
	c := Dial(t, b)
	if err := c.Ensure(t.Context(), Limits()); err != nil {
		t.Fatal(err)
	}
	return c
}

// Dial opens a bus on the broker as it is, and closes it at the end.
func Dial(t testing.TB, b *broker.Broker) *bus.Bus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := bus.Connect(ctx, bus.Config{InProcess: b.InProcess(), Token: b.Token(), Name: t.Name(), Logger: Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Limits are those of tests: the defaults with byte limits that fit any disk.
func Limits() events.Limits {
	l := events.DefaultLimits()
	l.LogBytes, l.TelemetryBytes, l.ObsBytes, l.DeadBytes, l.OutputBytes = 1<<30, 1<<28, 1<<28, 1<<28, 1<<28
	l.ResultOutputBytes, l.SnapshotBytes = 1<<28, 1<<28
	return l
}

// Restart shuts the broker down, leaves it down for a while and starts it again.
func Restart(t testing.TB, b *broker.Broker, down time.Duration) {
	t.Helper()
	b.Shutdown()
	timer := time.NewTimer(down)
	defer timer.Stop()
	<-timer.C
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
}

// Logger writes warnings and errors to the test's log; everything with -v is too much to read.
func Logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}
