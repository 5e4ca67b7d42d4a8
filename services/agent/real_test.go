package agent

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// realAgent runs an agent with real processes in real time.
func realAgent(t testing.TB, d Deps) *bus.Bus {
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
