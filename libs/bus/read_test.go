package bus_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// The last message at a time is found wherever messages are missing.
func TestLastAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		none := func(at time.Time) {
			t.Helper()
			_, ok, err := b.LastAt(t.Context(), events.StreamObs, at)
			require.NoError(t, err)
			require.False(t, ok)
		}
		none(time.Now())
		begin := time.Now()
		const last = 20
		for range last {
			time.Sleep(time.Second)
			require.NoError(t, b.Conn().Publish("obs.pc-01", []byte("x")))
			require.NoError(t, b.Conn().Flush())
		}
		time.Sleep(time.Second)
		s, err := b.JetStream().Stream(t.Context(), events.StreamObs)
		require.NoError(t, err)
		gone := map[uint64]bool{1: true, 2: true, 7: true, 8: true, 9: true, 15: true}
		for seq := range gone {
			require.NoError(t, s.DeleteMsg(t.Context(), seq))
		}
		none(begin.Add(2900 * time.Millisecond))
		for n := uint64(3); n <= last; n++ {
			want := n
			for gone[want] {
				want--
			}
			for _, late := range []time.Duration{500 * time.Millisecond, 900 * time.Millisecond} {
				seq, ok, err := b.LastAt(t.Context(), events.StreamObs, begin.Add(time.Duration(n)*time.Second+late))
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, want, seq)
			}
		}
		m, _, err := b.Get(t.Context(), events.StreamObs, 12)
		require.NoError(t, err)
		seq, _, err := b.LastAt(t.Context(), events.StreamObs, m.Time)
		require.NoError(t, err)
		require.EqualValues(t, 12, seq, "at a time means at it, too")
		seq, _, err = b.LastAt(t.Context(), events.StreamObs, m.Time.Add(-1))
		require.NoError(t, err)
		require.EqualValues(t, 11, seq)
	})
}

// Of each kind of fact of an aggregate the newest, in log order; nothing of another one.
func TestLastFacts(t *testing.T) {
	b := bustest.Connect(t, bustest.Broker(t))
	store := func(p events.Payload) uint64 {
		t.Helper()
		e, err := events.New(p, events.Meta{ID: events.DeriveID(p.AggregateID(), p.EventType(), time.Now().String()), Source: "/kanade/test", Time: time.Now(), Actor: "user:op"})
		require.NoError(t, err)
		seq, err := b.Append(t.Context(), e, bus.Any)
		require.NoError(t, err)
		return seq
	}
	last := func() ([]bus.Stored, error) { return b.LastFacts(t.Context(), events.AggregateExec, "e 1") }
	facts, err := last()
	require.NoError(t, err)
	require.Empty(t, facts)
	store(events.ExecPlanned{ExecID: "e 1"})
	store(events.ExecRequested{ExecID: "e 2"})
	first := store(events.ExecRequested{ExecID: "e 1"})
	second := store(events.ExecPlanned{ExecID: "e 1"})
	facts, err = last()
	require.NoError(t, err)
	require.Len(t, facts, 2)
	require.Equal(t, []uint64{first, second}, []uint64{facts[0].Seq, facts[1].Seq})
	require.Equal(t, events.ExecPlanned{}.EventType(), facts[1].Type)
	require.Equal(t, "e 1", facts[1].Subject)
	_, err = b.JetStream().Publish(t.Context(), events.FactSubject(events.AggregateExec, "e 1", "requested"), []byte("{"))
	require.NoError(t, err)
	_, err = last()
	var decode *events.DecodeError
	require.ErrorAs(t, err, &decode)
}
