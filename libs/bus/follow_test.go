package bus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
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

// follow runs Follow in the background and collects the sequences.
type follow struct {
	mu      sync.Mutex
	seqs    []uint64
	batches []int
	err     error
	cancel  context.CancelFunc
	ended   chan struct{}
}

func startFollow(t testing.TB, b *bus.Bus, c bus.FollowConfig) *follow {
	ctx, cancel := context.WithCancel(t.Context())
	f := &follow{cancel: cancel, ended: make(chan struct{})}
	t.Cleanup(func() { cancel(); <-f.ended })
	go func() {
		defer close(f.ended)
		f.err = b.Follow(ctx, c, func(_ context.Context, batch []bus.RawMsg) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, m := range batch {
				f.seqs = append(f.seqs, m.Seq)
			}
			f.batches = append(f.batches, len(batch))
			if len(batch) > 1 {
				time.Sleep(time.Second)
			}
			return nil
		})
	}()
	return f
}

func (f *follow) stop(t testing.TB) {
	f.cancel()
	<-f.ended
	require.NoError(t, f.err)
}

func upTo(n uint64) []uint64 {
	var all []uint64
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

func TestFollowIsExactAcrossBrokerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		f := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog, From: 1, Name: "test"})
		for i := range 5 {
			appendFacts(t, b, fmt.Sprint(i), 10)
			appendFacts(t, b, fmt.Sprint(i), 10) // duplicates are not stored
			bustest.Restart(t, br, time.Duration(i)*time.Minute)
			pause(time.Second)
		}
		pause(time.Minute)
		f.stop(t)
		require.Equal(t, upTo(50), f.seqs)
		requireNoConsumers(t, b, events.StreamLog)
	})
}

// requireNoConsumers: what followed has left nothing at the broker.
func requireNoConsumers(t testing.TB, b *bus.Bus, stream string) {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), stream)
	require.NoError(t, err)
	require.Zero(t, s.CachedInfo().State.Consumers)
}

func TestFollowBatchesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		appendFacts(t, b, "pc", 1000)
		f := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog, From: 301, MaxBatch: 200})
		pause(time.Minute)
		appendFacts(t, b, "one", 1)
		synctest.Wait()
		f.stop(t)
		require.Equal(t, upTo(1001)[300:], f.seqs)
		for _, n := range f.batches {
			require.LessOrEqual(t, n, 200)
		}
		require.Equal(t, 1, f.batches[len(f.batches)-1])
		require.Less(t, len(f.batches), 20)
	})
}

func TestFollowFiltersAndDeletedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		appendFacts(t, b, "a", 3)
		appendFacts(t, b, "b", 3)
		appendFacts(t, b, "a", 4)
		s, err := b.JetStream().Stream(t.Context(), events.StreamLog)
		require.NoError(t, err)
		require.NoError(t, s.DeleteMsg(t.Context(), 2))
		f := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog, Filters: []string{"events.agent.a.>"}})
		pause(time.Second)
		f.stop(t)
		require.Equal(t, []uint64{1, 3, 7}, f.seqs)
	})
}

func TestFollowLastPerSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		for i := range 9 {
			_, err := b.JetStream().Publish(t.Context(), fmt.Sprintf("obs.pc%d", i%3), nil)
			require.NoError(t, err)
		}
		f := startFollow(t, b, bus.FollowConfig{Stream: events.StreamObs, LastPerSubject: true})
		synctest.Wait()
		bustest.Restart(t, br, time.Second)
		pause(time.Second)
		_, err := b.JetStream().Publish(t.Context(), "obs.pc0", nil)
		require.NoError(t, err)
		pause(time.Second)
		f.stop(t)
		require.Equal(t, []uint64{7, 8, 9, 10}, f.seqs)
	})
}

func TestFollowStopsWithTheReadersError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		appendFacts(t, b, "pc", 5)
		full := errors.New("disk full")
		calls := 0
		err := b.Follow(t.Context(), bus.FollowConfig{Stream: events.StreamLog, MaxBatch: 2}, func(context.Context, []bus.RawMsg) error {
			if calls++; calls == 2 {
				return full
			}
			return nil
		})
		require.Equal(t, full, err)
		require.Equal(t, 2, calls)
		requireNoConsumers(t, b, events.StreamLog)
	})
}

func TestFollowSeesThatTheLogIsNotWhatItKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		appendFacts(t, b, "pc", 10)
		nothing := func(context.Context, []bus.RawMsg) error { return nil }

		var reset *bus.LogReset
		require.ErrorAs(t, b.Follow(t.Context(), bus.FollowConfig{Stream: events.StreamLog, From: 12}, nothing), &reset)
		require.Equal(t, uint64(10), reset.Last)

		s, err := b.JetStream().Stream(t.Context(), events.StreamLog)
		require.NoError(t, err)
		require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(6)))
		var pruned *bus.LogPruned
		require.ErrorAs(t, b.Follow(t.Context(), bus.FollowConfig{Stream: events.StreamLog, From: 5}, nothing), &pruned)
		require.Equal(t, uint64(6), pruned.First)
		require.ErrorIs(t, b.Follow(t.Context(), bus.FollowConfig{Stream: "NONE"}, nothing), bus.ErrNotFound)

		f := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog})
		at := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog, From: 11})
		pause(time.Minute)
		require.Equal(t, []uint64{6, 7, 8, 9, 10}, f.seqs, "a reader without a checkpoint takes what is there")

		// The broker comes back with an empty store while they follow.
		require.NoError(t, b.JetStream().DeleteStream(t.Context(), events.StreamLog))
		require.NoError(t, b.Ensure(t.Context(), bustest.Limits()))
		bustest.Restart(t, br, time.Second)
		pause(time.Minute)
		<-f.ended
		<-at.ended
		require.ErrorAs(t, f.err, &reset)
		require.ErrorAs(t, at.err, &reset)
	})
}

// The broker comes back with another store, of which the log is longer than what was read: bounds alone show nothing.
func TestFollowSeesALogThatWasReplacedAndHasGrownPastIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		appendFacts(t, b, "pc", 10)
		f := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog})
		at := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog, From: 11})
		pause(time.Minute)

		other := bustest.Broker(t)
		appendFacts(t, bustest.Connect(t, other), "other", 12)
		other.Shutdown()
		br.Shutdown()
		require.NoError(t, os.RemoveAll(br.StoreDir()))
		require.NoError(t, os.Rename(other.StoreDir(), br.StoreDir()))
		require.NoError(t, br.Restart())
		pause(time.Minute)
		for _, f := range []*follow{f, at} {
			f.cancel()
			<-f.ended
			var reset *bus.LogReset
			require.ErrorAs(t, f.err, &reset)
			require.ErrorContains(t, reset, "another message at sequence 10")
		}
		require.Equal(t, upTo(10), f.seqs)
		require.Empty(t, at.seqs)
		requireNoConsumers(t, b, events.StreamLog)
	})
}

func TestFollowBeginsBehindTheMessageItKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		appendFacts(t, b, "pc", 4)
		known, _, err := b.Get(t.Context(), events.StreamLog, 4)
		require.NoError(t, err)
		pause(time.Second)
		appendFacts(t, b, "later", 1)
		config := bus.FollowConfig{Stream: events.StreamLog, From: 5, KnownAt: known.Time}
		f := startFollow(t, b, config)
		pause(time.Second)
		f.stop(t)
		require.Equal(t, []uint64{5}, f.seqs)

		config.KnownAt = known.Time.Add(time.Nanosecond)
		var reset *bus.LogReset
		require.ErrorAs(t, b.Follow(t.Context(), config, nil), &reset)
		require.Equal(t, bus.LogReset{Stream: events.StreamLog, From: 5, Last: 5}, *reset)

		s, err := b.JetStream().Stream(t.Context(), events.StreamLog)
		require.NoError(t, err)
		require.NoError(t, s.DeleteMsg(t.Context(), 4))
		f = startFollow(t, b, config)
		pause(time.Second)
		f.stop(t)
		require.Equal(t, []uint64{5}, f.seqs, "what is gone can't be compared")
	})
}

func TestFollowOfAnIdleStreamStaysThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		f := startFollow(t, b, bus.FollowConfig{Stream: events.StreamLog})
		pause(26 * time.Hour)
		appendFacts(t, b, "pc", 2)
		pause(time.Millisecond)
		f.stop(t)
		require.Equal(t, upTo(2), f.seqs)
	})
}

func TestFollowIsOrderedWhileTheReaderIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx, cancel := context.WithCancel(t.Context())
		var seqs []uint64
		ended := make(chan error)
		go func() {
			ended <- b.Follow(ctx, bus.FollowConfig{Stream: events.StreamPresence, MaxBatch: 10}, func(_ context.Context, batch []bus.RawMsg) error {
				for _, m := range batch {
					seqs = append(seqs, m.Seq)
				}
				time.Sleep(time.Minute) // longer than heartbeats and expiry put together, at times
				return nil
			})
		}()
		var msgs []*nats.Msg
		for i := range 200 {
			msgs = append(msgs, &nats.Msg{Subject: fmt.Sprintf("heartbeat.pc%d", i), Data: make([]byte, 1000)})
		}
		require.NoError(t, b.PublishAll(t.Context(), msgs, 0))
		pause(time.Hour)
		cancel()
		require.NoError(t, <-ended)
		require.Equal(t, upTo(200), seqs)
	})
}
