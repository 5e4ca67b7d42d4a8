package bus_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestEnsureMendsForeignEdits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		before := configs(t, b)
		require.Len(t, before, len(events.Streams(bustest.Limits()))+len(events.Buckets(bustest.Limits()))+len(events.ObjectStores(bustest.Limits())))

		log := before[events.StreamLog]
		log.MaxAge, log.Discard, log.DenyPurge, log.AllowMsgTTL = time.Hour, jetstream.DiscardOld, false, true
		log.Metadata = nil
		_, err := b.JetStream().UpdateStream(ctx, log)
		require.NoError(t, err)
		jobs := before["KV_jobs"]
		jobs.MaxMsgsPerSubject, jobs.Description = 64, "mine"
		_, err = b.JetStream().UpdateStream(ctx, jobs)
		require.NoError(t, err)

		require.NoError(t, b.Ensure(ctx, bustest.Limits()))
		require.Equal(t, before, configs(t, b))
	})
}

func TestEnsureIsIdempotentAndConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		buses := []*bus.Bus{bustest.Dial(t, br), bustest.Dial(t, br), bustest.Dial(t, br)}
		var all sync.WaitGroup
		for _, b := range buses {
			all.Go(func() {
				if err := b.Ensure(t.Context(), bustest.Limits()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		updates, err := buses[0].Conn().SubscribeSync("$JS.API.STREAM.UPDATE.>")
		require.NoError(t, err)
		require.NoError(t, buses[0].Ensure(t.Context(), bustest.Limits()))
		require.NoError(t, buses[0].Conn().Flush())
		n, _, err := updates.Pending()
		require.NoError(t, err)
		require.Zero(t, n, "a second Ensure must change nothing")
	})
}

func TestEnsureLeavesLaterRevisionsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		later := configs(t, b)[events.StreamDead]
		later.MaxAge = time.Hour
		later.Metadata = map[string]string{"kanade-revision": "999"}
		_, err := b.JetStream().UpdateStream(t.Context(), later)
		require.NoError(t, err)
		require.NoError(t, b.Ensure(t.Context(), bustest.Limits()))
		require.Equal(t, time.Hour, configs(t, b)[events.StreamDead].MaxAge)
	})
}

func TestEnsureNamesWhatTheBrokerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Dial(t, bustest.Broker(t))
		_, err := b.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{
			Name: events.StreamTimers, Subjects: []string{"timers.>"}, Storage: jetstream.MemoryStorage,
		})
		require.NoError(t, err)
		err = b.Ensure(t.Context(), bustest.Limits())
		var refused *bus.EnsureError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, events.StreamTimers, refused.Stream)
		require.Contains(t, refused.Fields, "Storage")
		require.ErrorContains(t, err, "TIMERS")
		require.Contains(t, configs(t, b), events.StreamDead, "the others are there nevertheless")
	})
}

func configs(t *testing.T, b *bus.Bus) map[string]jetstream.StreamConfig {
	t.Helper()
	all := map[string]jetstream.StreamConfig{}
	list := b.JetStream().ListStreams(t.Context())
	for info := range list.Info() {
		all[info.Config.Name] = info.Config
	}
	require.NoError(t, list.Err())
	return all
}

// A service that starts while the broker goes away must not end for it.
func TestEnsureWaitsForTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Dial(t, br)
		br.Shutdown()
		synctest.Wait()
		go func() { bustest.Restart(t, br, time.Minute) }()
		require.NoError(t, b.Ensure(t.Context(), bustest.Limits()))

		br.Shutdown()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, b.Ensure(ctx, bustest.Limits()), bus.ErrUnavailable)
		b.Close()
		require.ErrorIs(t, b.Ensure(t.Context(), bustest.Limits()), bus.ErrUnavailable)
	})
}
