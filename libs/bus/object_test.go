package bus_test

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		_, err := b.GetObject(ctx, events.StoreScripts, "a/1")
		require.ErrorIs(t, err, bus.ErrNotFound)
		_, err = b.GetObject(ctx, "none", "a/1")
		require.ErrorIs(t, err, bus.ErrNotFound)
		require.ErrorIs(t, b.PutObject(ctx, "none", "a/1", bytes.NewReader(nil)), bus.ErrNotFound)

		text := bytes.Repeat([]byte("0123456789"), 100_000)
		require.NoError(t, b.PutObject(ctx, events.StoreScripts, "a/1", bytes.NewReader(text)))
		r, err := b.GetObject(ctx, events.StoreScripts, "a/1")
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, text, got)

		require.NoError(t, b.DeleteObject(ctx, events.StoreScripts, "a/1"))
		require.NoError(t, b.DeleteObject(ctx, events.StoreScripts, "a/1"))
		_, err = b.GetObject(ctx, events.StoreScripts, "a/1")
		require.ErrorIs(t, err, bus.ErrNotFound)
	})
}
