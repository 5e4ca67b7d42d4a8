package bus_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// fact makes a fact of an endpoint; ids are the caller's.
func fact(t testing.TB, id, pc string) events.Event {
	t.Helper()
	e, err := events.New(events.AgentGrouped{PCID: pc, Groups: []string{id}},
		events.Meta{ID: id, Source: "/kanade/test", Time: time.Unix(0, 0).UTC(), Actor: "service:test"})
	require.NoError(t, err)
	return e
}

func appendFacts(t testing.TB, b *bus.Bus, pc string, n int) (last uint64) {
	t.Helper()
	for i := range n {
		seq, err := b.Append(t.Context(), fact(t, fmt.Sprintf("%s-%d", pc, i), pc), bus.Any)
		require.NoError(t, err)
		last = seq
	}
	return last
}

func TestAppendRefusesStaleWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		first, err := b.Append(ctx, fact(t, "a", "pc"), 0)
		require.NoError(t, err)
		appendFacts(t, b, "other", 3)
		second, err := b.Append(ctx, fact(t, "b", "pc"), first)
		require.NoError(t, err, "another aggregate does not count")

		_, err = b.Append(ctx, fact(t, "c", "pc"), first)
		require.ErrorIs(t, err, bus.ErrConflict)
		var conflict *bus.Conflict
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, []uint64{first, second}, []uint64{conflict.Expected, conflict.Last})

		all, err := b.Load(ctx, events.AggregateAgent, "pc", 0)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.Equal(t, second, all[1].Seq)
		require.Equal(t, "b", all[1].ID)
	})
}

// A writer whose acknowledgement was lost repeats itself; the broker refuses it because of its own message, after which
// others have written already.
func TestAppendKnowsItsOwnMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		stored, err := b.Append(ctx, fact(t, "own", "pc"), 0)
		require.NoError(t, err)
		_, err = b.Append(ctx, fact(t, "next", "pc"), stored)
		require.NoError(t, err)

		again, err := b.Append(ctx, fact(t, "own", "pc"), 0)
		require.NoError(t, err)
		require.Equal(t, stored, again)

		time.Sleep(time.Hour) // the broker has forgotten the message id
		again, err = b.Append(ctx, fact(t, "own", "pc"), 0)
		require.NoError(t, err)
		require.Equal(t, stored, again)
	})
}

// Two writers decide on the same state. The one that stalled is refused, with the broker's and with its own word.
func TestStalledSecondWriterIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		one, two := bustest.Connect(t, br), bustest.Dial(t, br)
		ctx := t.Context()
		last := appendFacts(t, one, "pc", 1)
		_, err := two.Append(ctx, fact(t, "winner", "pc"), last)
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		_, err = one.Append(ctx, fact(t, "stalled", "pc"), last)
		require.ErrorIs(t, err, bus.ErrConflict)
	})
}

func TestAppendToFullLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Dial(t, br)
		limits := bustest.Limits()
		limits.LogBytes = 4 << 10
		require.NoError(t, b.Ensure(t.Context(), limits))
		var err error
		for i := range 100 {
			if _, err = b.Append(t.Context(), fact(t, fmt.Sprint(i), "pc"), bus.Any); err != nil {
				break
			}
		}
		require.ErrorIs(t, err, bus.ErrLogFull)
	})
}

func TestAppendWaitsForBrokerAndGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		done := make(chan error)
		go func() { done <- nil; bustest.Restart(t, br, 2*time.Second); done <- nil }()
		<-done
		time.Sleep(time.Second)
		_, err := b.Append(t.Context(), fact(t, "a", "pc"), 0)
		require.NoError(t, err, "a restart is waited for")
		<-done

		br.Shutdown()
		synctest.Wait()
		start := time.Now()
		_, err = b.Append(t.Context(), fact(t, "b", "pc"), 1)
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.Equal(t, bus.DefaultTimeout, time.Since(start))
	})
}

func TestStrongReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		_, ok, err := b.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateAgent, "pc.x"))
		require.NoError(t, err)
		require.False(t, ok)
		last := appendFacts(t, b, "pc.x", 3)
		got, ok, err := b.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateAgent, "pc.x"))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, last, got.Seq)
		require.Equal(t, "pc.x-2", got.ID)
		require.Equal(t, "pc.x", got.Subject)
		require.Equal(t, time.Now().UTC(), got.StoredAt)

		raw, ok, err := b.Get(ctx, events.StreamLog, 2)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, uint64(2), raw.Seq)
		_, ok, err = b.Get(ctx, events.StreamLog, 99)
		require.NoError(t, err)
		require.False(t, ok)
		seq, err := b.LastSeq(ctx, events.StreamLog)
		require.NoError(t, err)
		require.Equal(t, last, seq)
		_, err = b.LastSeq(ctx, "NONE")
		require.ErrorIs(t, err, bus.ErrNotFound)
		_, _, err = b.LastRaw(ctx, "NONE", "x")
		require.ErrorIs(t, err, bus.ErrNotFound)
	})
}

func TestLoadPagesThroughALargeAggregate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		appendFacts(t, b, "pc", 1234)
		all, err := b.Load(t.Context(), events.AggregateAgent, "pc", 0)
		require.NoError(t, err)
		require.Len(t, all, 1234)
		rest, err := b.Load(t.Context(), events.AggregateAgent, "pc", 1200)
		require.NoError(t, err)
		require.Equal(t, all[1200:], rest)
		none, err := b.Load(t.Context(), events.AggregateAgent, "pc", 1234)
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

func TestPublishAllChecksEveryAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		var msgs []*nats.Msg
		for i := range 1000 {
			m := nats.NewMsg(fmt.Sprintf("commands.pc.pc%d", i))
			m.Header.Set(events.HeaderMsgID, fmt.Sprint(i))
			msgs = append(msgs, m)
		}
		require.NoError(t, b.PublishAll(t.Context(), msgs, 64))
		require.NoError(t, b.PublishAll(t.Context(), msgs[:10], 0), "a repetition is stored once")
		last, err := b.LastSeq(t.Context(), events.StreamExec)
		require.NoError(t, err)
		require.Equal(t, uint64(1000), last)

		bad := []*nats.Msg{nats.NewMsg("commands.pc.a"), nats.NewMsg("nowhere"), nats.NewMsg("commands.pc.b")}
		err = b.PublishAll(t.Context(), bad, 2)
		var failed *bus.PublishError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, 1, failed.Failed)
		require.Equal(t, 3, failed.Total)
	})
}

func TestNowIsTheBrokersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		for range 5 {
			now, err := b.Now(t.Context())
			require.NoError(t, err)
			require.Equal(t, time.Now().UTC(), now)
			time.Sleep(17 * time.Second)
		}
		br.Shutdown()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		time.Sleep(2 * time.Minute)
		_, err := b.Now(ctx)
		require.ErrorIs(t, err, bus.ErrUnavailable)
	})
}
