package sim

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

func TestMain(m *testing.M) { bustest.Main(m) }

func fleet(t testing.TB, n int) (*bus.Bus, *Fleet) {
	t.Helper()
	br := bustest.Broker(t)
	b := bustest.Connect(t, br)
	c := Config{Buses: []*bus.Bus{bustest.Dial(t, br), bustest.Dial(t, br)}, Logger: bustest.Logger(t)}
	for i := range n {
		c.PCs = append(c.PCs, fmt.Sprintf("pc-%05d", i))
	}
	c.Groups = func(pc string) []string { return []string{"tokyo"} }
	f, err := Start(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return b, f
}

func send(t testing.TB, b *bus.Bus, subject, request string) {
	t.Helper()
	data, err := json.Marshal(wire.Command{
		ID: "hello", Version: "1", RequestID: request, ExecID: "e-" + request, Shell: wire.ShellSh, Script: "true", TimeoutSecs: 1,
	})
	require.NoError(t, err)
	require.NoError(t, b.PublishAll(t.Context(), []*nats.Msg{{Subject: subject, Data: data}}, 1))
}

func TestFleetAnswersOnce(t *testing.T) {
	b, f := fleet(t, 500)
	send(t, b, wire.SubjectCommandAll, "r1")
	send(t, b, wire.SubjectCommandGroup("tokyo"), "r1")
	send(t, b, wire.SubjectCommandPC("pc-00007"), "r2")
	require.Eventually(t, func() bool { return f.Runs() == 501 }, 20*time.Second, 10*time.Millisecond)
	facts, err := b.Load(t.Context(), events.AggregateRun, "pc-00007", 0)
	require.NoError(t, err)
	require.Len(t, facts, 6)
	last, err := b.LastSeq(t.Context(), events.StreamLog)
	require.NoError(t, err)
	require.EqualValues(t, 1503, last)
	require.Eventually(t, func() bool {
		seen, err := b.LastSeq(t.Context(), events.StreamPresence)
		return err == nil && seen == 500
	}, 10*time.Second, 10*time.Millisecond)
}

func TestAnswersAreHeldBack(t *testing.T) {
	br := bustest.Broker(t)
	b := bustest.Connect(t, br)
	var heard atomic.Int64
	gate := make(chan struct{})
	f, err := Start(t.Context(), Config{
		Buses: []*bus.Bus{bustest.Dial(t, br)}, PCs: []string{"pc-1", "pc-2", "pc-3"}, Logger: bustest.Logger(t),
		Heard: func(string) { heard.Add(1) }, Hold: func() <-chan struct{} { return gate },
	})
	require.NoError(t, err)
	t.Cleanup(f.Close)
	send(t, b, wire.SubjectCommandAll, "r1")
	require.Eventually(t, func() bool { return heard.Load() == 3 }, 20*time.Second, time.Millisecond)
	require.Zero(t, f.Runs())
	close(gate)
	require.Eventually(t, func() bool { return f.Runs() == 3 }, 20*time.Second, time.Millisecond)
}

// BenchmarkBroadcast is one command to 1 000 endpoints until the log has all their facts.
func BenchmarkBroadcast(b *testing.B) {
	bus, f := fleet(b, 1000)
	for i := 0; b.Loop(); i++ {
		want := f.Runs() + 1000
		send(b, bus, wire.SubjectCommandAll, fmt.Sprintf("r%d", i))
		for f.Runs() < want {
			time.Sleep(100 * time.Microsecond)
		}
	}
}
