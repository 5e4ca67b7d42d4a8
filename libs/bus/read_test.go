package bus_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

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
