package bus_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestDeleteTakesOneFact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		last := appendFacts(t, b, "pc", 3)
		for _, want := range []bool{true, false} {
			there, err := b.Delete(t.Context(), last-1)
			require.NoError(t, err)
			require.Equal(t, want, there)
		}
		there, err := b.Delete(t.Context(), last+100)
		require.NoError(t, err)
		require.False(t, there)
		facts, err := b.Load(t.Context(), events.AggregateAgent, "pc", 0)
		require.NoError(t, err)
		require.Equal(t, []uint64{last - 2, last}, []uint64{facts[0].Seq, facts[1].Seq})
	})
}

// What was last before is last again, for whoever asks for the stream's last message and for whoever appends.
func TestLastAfterTheLastWasDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		_, ok, err := b.LastRaw(t.Context(), events.StreamLog, ">")
		require.NoError(t, err)
		require.False(t, ok)
		last := appendFacts(t, b, "pc", 3)
		for want := last - 1; want > last-3; want-- {
			_, err := b.Delete(t.Context(), want+1)
			require.NoError(t, err)
			for _, filter := range []string{">", events.AggregateFilter(events.AggregateAgent, "pc"), events.FactSubject(events.AggregateAgent, "pc", "grouped")} {
				m, ok, err := b.LastRaw(t.Context(), events.StreamLog, filter)
				require.NoError(t, err)
				require.True(t, ok, filter)
				require.Equal(t, want, m.Seq)
			}
		}
		seq, err := b.Append(t.Context(), fact(t, "next", "pc"), last-2)
		require.NoError(t, err)
		require.Equal(t, last+1, seq, "sequences are not used again")
	})
}

// A page ends by its bytes as well; what is larger than that comes all the same, and what is deleted meanwhile is not missed.
func TestWalkReadsAllInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		last := appendFacts(t, b, "pc", 600)
		want := 600
		var seen []uint64
		look := func(m bus.RawMsg) (bool, error) {
			seen = append(seen, m.Seq)
			_, err := b.Delete(t.Context(), m.Seq)
			return true, err
		}
		require.NoError(t, b.Walk(t.Context(), events.FactFilter(events.AggregateAgent, "grouped"), 0, look))
		require.Len(t, seen, want)
		require.Equal(t, last, seen[want-1])
		require.NoError(t, b.Walk(t.Context(), events.FactFilter(events.AggregateAgent, "grouped"), 0, func(bus.RawMsg) (bool, error) {
			t.Error("there is nothing left")
			return false, nil
		}))
	})
}

func TestWalkReadsWhatIsLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 4 {
			_, err := b.JetStream().Publish(ctx, events.PrefixAudit+"x", []byte(strings.Repeat("x", 3<<20)))
			require.NoError(t, err)
		}
		n := 0
		require.NoError(t, b.Walk(ctx, events.PrefixAudit+"x", 0, func(bus.RawMsg) (bool, error) { n++; return true, nil }))
		require.Equal(t, 4, n)
		n = 0
		require.NoError(t, b.Walk(ctx, events.PrefixAudit+"x", 0, func(bus.RawMsg) (bool, error) { n++; return n < 2, nil }))
		require.Equal(t, 2, n)
		n = 0
		require.NoError(t, b.Walk(ctx, events.PrefixAudit+"x", 4, func(m bus.RawMsg) (bool, error) { n += int(m.Seq); return true, nil }))
		require.Equal(t, 4, n)
	})
}
