package bus_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func commandsTo(from, to int) []*nats.Msg {
	var msgs []*nats.Msg
	for i := from; i < to; i++ {
		subject := fmt.Sprintf("commands.pc.pc-%04d", i)
		msgs = append(msgs, &nats.Msg{Subject: subject, Header: nats.Header{events.HeaderMsgID: {subject}}, Data: []byte("{}")})
	}
	return msgs
}

func stateOf(t *testing.T, b *bus.Bus, stream string) jetstream.StreamState {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), stream)
	require.NoError(t, err)
	return s.CachedInfo().State
}

// Everything is stored, in order, and what was there before is not stored again.
func TestPublishBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		begin := time.Now()
		require.NoError(t, b.PublishBatch(t.Context(), nil))
		require.NoError(t, b.PublishBatch(t.Context(), commandsTo(5, 6)))
		require.NoError(t, b.PublishBatch(t.Context(), commandsTo(5, 6)), "a batch of one that is a double")
		require.NoError(t, b.PublishBatch(t.Context(), commandsTo(0, bus.MaxBatch)))
		require.NoError(t, b.PublishBatch(t.Context(), commandsTo(0, bus.MaxBatch)), "doubles only")
		require.NoError(t, b.PublishBatch(t.Context(), commandsTo(bus.MaxBatch-1, bus.MaxBatch+1)), "the first is a double")
		require.Equal(t, uint64(bus.MaxBatch+1), stateOf(t, b, events.StreamExec).Msgs)
		m, ok, err := b.LastRaw(t.Context(), events.StreamExec, "commands.pc.pc-0004")
		require.NoError(t, err)
		require.True(t, ok)
		require.EqualValues(t, 6, m.Seq)
		require.Equal(t, "{}", string(m.Data))
		require.Less(t, time.Since(begin), bus.DefaultTimeout, "no answer was waited for in vain")
		require.Error(t, b.PublishBatch(t.Context(), commandsTo(0, bus.MaxBatch+1)))
	})
}

// A stream without batches refuses them; Ensure mends it.
func TestPublishBatchWhereThereAreNone(t *testing.T) {
	b := bustest.Connect(t, bustest.Broker(t))
	config := mustInfo(t, b, events.StreamExec).Config
	config.AllowBatchPublish = false
	_, err := b.JetStream().UpdateStream(t.Context(), config)
	require.NoError(t, err)
	require.ErrorContains(t, b.PublishBatch(t.Context(), commandsTo(0, 100)), "batch publish is disabled")
	require.Zero(t, stateOf(t, b, events.StreamExec).Msgs)
	require.NoError(t, b.Ensure(t.Context(), bustest.Limits()))
	require.NoError(t, b.PublishBatch(t.Context(), commandsTo(0, 100)))
	require.EqualValues(t, 100, stateOf(t, b, events.StreamExec).Msgs)
}

// A refusal in the middle is the error, what came before it is stored, and nothing is published again.
func TestPublishBatchRefused(t *testing.T) {
	b := bustest.Connect(t, bustest.Broker(t))
	config := mustInfo(t, b, events.StreamExec).Config
	config.MaxMsgs, config.Discard = 10, jetstream.DiscardNew
	_, err := b.JetStream().UpdateStream(t.Context(), config)
	require.NoError(t, err)
	heard, err := b.Conn().SubscribeSync("commands.>")
	require.NoError(t, err)
	err = b.PublishBatch(t.Context(), commandsTo(0, 30))
	require.ErrorContains(t, err, "maximum messages exceeded")
	var failed *bus.PublishError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 20, failed.Failed)
	require.NoError(t, b.Conn().Flush())
	n, _, err := heard.Pending()
	require.NoError(t, err)
	require.Equal(t, 30, n)
	require.EqualValues(t, 10, stateOf(t, b, events.StreamExec).Msgs)
}

// The end of the connection ends the batch.
func TestPublishBatchEndsWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		_, err := b.Conn().Subscribe("nowhere", func(*nats.Msg) {}) // somebody hears it, nobody answers
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		time.AfterFunc(time.Second, br.Shutdown)
		require.ErrorIs(t, b.PublishBatch(ctx, []*nats.Msg{{Subject: "nowhere"}, {Subject: "nowhere"}}), bus.ErrUnavailable)
		require.Equal(t, time.Second, time.Since(begin))
	})
}

func mustInfo(t *testing.T, b *bus.Bus, stream string) *jetstream.StreamInfo {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), stream)
	require.NoError(t, err)
	return s.CachedInfo()
}
