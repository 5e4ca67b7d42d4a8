//go:build unix

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// real runs an agent with real processes in real time.
func real(t testing.TB, d Deps) *bus.Bus {
	t.Helper()
	b := bustest.Connect(t, bustest.Broker(t))
	d.Bus, d.Logger = b, bustest.Logger(t)
	ctx, cancel := context.WithCancel(context.Background())
	done, dir := make(chan error, 1), t.TempDir()
	beats, err := b.Conn().SubscribeSync(wire.SubjectHeartbeat(testPC))
	require.NoError(t, err)
	go func() { done <- Run(ctx, Config{ID: testPC, Data: dir}, d) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	_, err = beats.NextMsg(10 * time.Second)
	require.NoError(t, err)
	require.NoError(t, beats.Unsubscribe())
	return b
}

// ends are the runs' ends as they are stored.
func ends(t testing.TB, b *bus.Bus) (next func() events.RunFinished) {
	t.Helper()
	sub, err := b.Conn().SubscribeSync(events.FactSubject(events.AggregateRun, testPC, "finished"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return func() events.RunFinished {
		m, err := sub.NextMsg(15 * time.Second)
		require.NoError(t, err)
		e, err := events.Decode(m.Subject, m.Header, m.Data)
		require.NoError(t, err)
		p, err := e.Payload()
		require.NoError(t, err)
		return p.(events.RunFinished)
	}
}

func publish(t testing.TB, b *bus.Bus, c wire.Command) {
	t.Helper()
	data, err := json.Marshal(c)
	require.NoError(t, err)
	require.NoError(t, b.PublishAll(context.Background(), []*nats.Msg{{Subject: wire.SubjectCommandPC(testPC), Data: data}}, 1))
}

func TestRealShell(t *testing.T) {
	b := real(t, Deps{})
	next := ends(t, b)
	publish(t, b, command("r1", func(c *wire.Command) {
		c.Script = `echo "hello from $KANADE_PC_ID"; echo warn >&2; exit 3`
	}))
	f := next()
	require.Equal(t, events.StateFailed, f.State)
	require.Equal(t, 3, *f.ExitCode)
	require.Equal(t, "hello from pc-01\n", f.Stdout.Text)
	require.Equal(t, "warn\n", f.Stderr.Text)

	begun := time.Now()
	publish(t, b, command("r2", func(c *wire.Command) { c.Script, c.TimeoutSecs = "sleep 600 & sleep 600", 1 }))
	f = next()
	require.Equal(t, events.StateTimedOut, f.State)
	require.Equal(t, "timeout after 1s", f.Reason)
	require.Less(t, time.Since(begun), 3*time.Second)
}

// BenchmarkRun is one command after another: from publishing it to the end of its run in the log, with an fsync at each
// of the three steps.
func BenchmarkRun(b *testing.B) {
	for name, d := range map[string]Deps{"scripted": {Executor: newScripted()}, "sh": {}} {
		b.Run(name, func(b *testing.B) {
			bus := real(b, d)
			next := ends(b, bus)
			i := 0
			for b.Loop() {
				publish(b, bus, command(fmt.Sprintf("r%d", i), func(c *wire.Command) { c.Script = "true" }))
				next()
				i++
			}
		})
	}
}
