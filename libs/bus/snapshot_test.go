package bus_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// A restored stream goes on: timers come due, and what has an age leaves at its time while what is for ever stays.
func TestRestoredStreamGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Dial(t, bustest.Broker(t))
		ctx := t.Context()
		require.NoError(t, b.Ensure(ctx, bustest.Limits()))
		due := time.Now().Add(time.Hour)
		require.NoError(t, b.SetTimer(ctx, bus.Timer{Kind: "tick", Key: "s", Generation: "1", At: due}))
		require.NoError(t, b.PutViewFor(ctx, events.BucketExecStopped, "x", []byte("killed"), 1, 2*time.Hour))
		kept, err := b.Append(ctx, snapshotFact(t, "kept", events.AgentGrouped{PCID: "pc-01", Groups: []string{"g"}}), bus.Any)
		require.NoError(t, err)
		_, err = b.JetStream().Publish(ctx, "output.x", []byte("aged"))
		require.NoError(t, err)
		streams := []string{events.StreamTimers, events.StreamLog, events.StreamOutput, "KV_" + events.BucketExecStopped}
		taken, files := map[string]bus.Snapshot{}, map[string]*bytes.Buffer{}
		for _, name := range streams {
			files[name] = &bytes.Buffer{}
			taken[name], err = b.Snapshot(ctx, name, false, files[name])
			require.NoError(t, err)
		}

		time.Sleep(10 * time.Minute)
		other := bustest.Dial(t, bustest.Broker(t))
		for _, name := range streams {
			n, err := other.Restore(ctx, taken[name], files[name])
			require.NoError(t, err)
			require.Equal(t, taken[name].Messages, n)
		}
		_, err = other.Restore(ctx, taken[events.StreamLog], bytes.NewReader(nil))
		require.ErrorIs(t, err, bus.ErrExists)
		time.Sleep(time.Until(due) + time.Second)
		m, ok, err := other.LastRaw(ctx, events.StreamTimers, events.TimerDueFilter("tick"))
		require.NoError(t, err)
		require.True(t, ok)
		require.WithinDuration(t, due, m.Time, time.Second)
		_, ok, err = other.View(ctx, events.BucketExecStopped, "x")
		require.NoError(t, err)
		require.True(t, ok)
		time.Sleep(time.Hour)
		v, _, err := other.View(ctx, events.BucketExecStopped, "x")
		require.NoError(t, err)
		require.True(t, v.Deleted, "its time is up when it was")

		_, ok, err = other.Get(ctx, events.StreamOutput, 1)
		require.NoError(t, err)
		require.True(t, ok)
		time.Sleep(5 * time.Hour)
		_, ok, err = other.Get(ctx, events.StreamLog, kept)
		require.NoError(t, err)
		require.True(t, ok)
		_, ok, err = other.Get(ctx, events.StreamOutput, 1)
		require.NoError(t, err)
		require.False(t, ok)
	})
}

// A snapshot that can't be taken or written says so, and a stream of half a snapshot is refused.
func TestSnapshotFails(t *testing.T) {
	broker := bustest.Broker(t)
	b := bustest.Connect(t, broker)
	_, err := b.Snapshot(t.Context(), "NONE", false, &bytes.Buffer{})
	require.ErrorIs(t, err, bus.ErrNotFound)
	full := errors.New("disk is full")
	_, err = b.Snapshot(t.Context(), events.StreamLog, false, writes(func([]byte) (int, error) { return 0, full }))
	require.ErrorIs(t, err, full)

	var whole bytes.Buffer
	s, err := b.Snapshot(t.Context(), events.StreamLog, false, &whole)
	require.NoError(t, err)
	other := bustest.Dial(t, bustest.Broker(t))
	_, err = other.Restore(t.Context(), s, bytes.NewReader(whole.Bytes()[:whole.Len()/2]))
	require.ErrorContains(t, err, "restore stream LOG")

	require.NoError(t, b.PutObject(t.Context(), events.StoreScripts, "a/1", bytes.NewReader(make([]byte, 1<<20))))
	_, err = b.Snapshot(t.Context(), "OBJ_"+events.StoreScripts, false, writes(func(p []byte) (int, error) {
		broker.Shutdown()
		return len(p), nil
	}))
	require.ErrorIs(t, err, bus.ErrUnavailable)
}

type writes func([]byte) (int, error)

func (w writes) Write(p []byte) (int, error) { return w(p) }

func snapshotFact(t *testing.T, id string, p events.Payload) events.Event {
	t.Helper()
	e, err := events.New(p, events.Meta{ID: id, Source: "/kanade/test", Time: time.Now().UTC(), Actor: "user:op"})
	require.NoError(t, err)
	return e
}
