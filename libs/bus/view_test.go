package bus_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestViewNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		get := func() (string, uint64, bool) {
			value, seq, _, ok, err := b.GetView(ctx, events.BucketJobs, "a.b")
			require.NoError(t, err)
			return string(value), seq, ok
		}
		require.NoError(t, b.PutView(ctx, events.BucketJobs, "a.b", nil, 1), "nothing to delete")
		_, _, ok := get()
		require.False(t, ok)
		require.NoError(t, b.PutView(ctx, events.BucketJobs, "a.b", []byte("five"), 5))
		require.NoError(t, b.PutView(ctx, events.BucketJobs, "a.b", []byte("four"), 4))
		require.NoError(t, b.PutView(ctx, events.BucketJobs, "a.b", nil, 3))
		value, seq, ok := get()
		require.True(t, ok)
		require.Equal(t, "five", value)
		require.Equal(t, uint64(5), seq)

		require.NoError(t, b.PutView(ctx, events.BucketJobs, "a.b", nil, 6))
		_, _, ok = get()
		require.False(t, ok)
		require.NoError(t, b.PutView(ctx, events.BucketJobs, "a.b", []byte("five"), 5), "a deletion is not undone by what was before it")
		_, _, ok = get()
		require.False(t, ok)

		kv, err := b.JetStream().KeyValue(ctx, events.BucketJobs)
		require.NoError(t, err)
		_, err = kv.Get(ctx, "a.b")
		require.Error(t, err, "agents see the deletion as well")
	})
}

func TestViewDoesNotCoverForeignEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		kv, err := b.JetStream().KeyValue(ctx, events.BucketScriptStatus)
		require.NoError(t, err)
		revision, err := kv.PutString(ctx, "job", "REVOKED")
		require.NoError(t, err)
		require.ErrorIs(t, b.PutView(ctx, events.BucketScriptStatus, "job", []byte("ACTIVE"), 9), bus.ErrForeign)
		v, ok, err := b.View(ctx, events.BucketScriptStatus, "job")
		require.NoError(t, err)
		require.True(t, ok)
		require.False(t, v.Ours)
		require.Equal(t, revision, v.Revision)
		require.ErrorIs(t, b.ReplaceView(ctx, events.BucketScriptStatus, "job", []byte("ACTIVE"), 9, revision+1), bus.ErrConflict)
		require.NoError(t, b.ReplaceView(ctx, events.BucketScriptStatus, "job", []byte("ACTIVE"), 9, revision))
		entry, err := kv.Get(ctx, "job")
		require.NoError(t, err)
		require.Equal(t, "ACTIVE", string(entry.Value()))
	})
}

func TestViewWritersEndWithTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		writers := []*bus.Bus{bustest.Connect(t, br), bustest.Dial(t, br)}
		var all sync.WaitGroup
		for seq := uint64(1); seq <= 40; seq++ {
			all.Go(func() {
				if err := writers[seq%2].PutView(t.Context(), events.BucketJobs, "a", []byte(fmt.Sprint(seq)), seq); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		value, seq, _, _, err := writers[0].GetView(t.Context(), events.BucketJobs, "a")
		require.NoError(t, err)
		require.Equal(t, "40", string(value))
		require.Equal(t, uint64(40), seq)
	})
}

func TestPublisherTellsTheSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		p := b.Publisher()
		m := message.NewMessage("", []byte("x"))
		m.SetContext(t.Context())
		m.Metadata.Set(events.HeaderMsgID, "id")
		m.Metadata.Set(bus.MetadataExpected, "0")
		require.NoError(t, p.Publish("commands.all", m))
		require.Equal(t, "1", m.Metadata.Get(bus.MetadataSequence))
		m.Metadata.Set(events.HeaderMsgID, "other")
		require.ErrorIs(t, p.Publish("commands.all", m), bus.ErrConflict)
		raw, ok, err := b.LastRaw(t.Context(), events.StreamExec, "commands.all")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, []string{"id"}, raw.Header[events.HeaderMsgID])
		require.NotContains(t, raw.Header, bus.MetadataExpected)
		require.NoError(t, p.Close())
		m.Metadata.Set(bus.MetadataExpected, "1")
		require.NoError(t, p.Publish("commands.all", m))
	})
}
