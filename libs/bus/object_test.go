package bus_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
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
		get := func(name string) (bus.Object, error) { return b.GetObject(ctx, events.StoreScripts, name, 2_000_000) }
		_, err := get("a/1")
		require.ErrorIs(t, err, bus.ErrNotFound)
		_, err = b.GetObject(ctx, "none", "a/1", 1)
		require.ErrorIs(t, err, bus.ErrNotFound)
		require.ErrorIs(t, b.PutObject(ctx, "none", "a/1", bytes.NewReader(nil)), bus.ErrNotFound)

		for _, size := range []int{0, 1, 32 << 10, 64 << 10, 1_000_000, 5} {
			text := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
			require.NoError(t, b.PutObject(ctx, events.StoreScripts, "a/1", iotest.HalfReader(bytes.NewReader(text))))
			o, err := get("a/1")
			require.NoError(t, err)
			require.Equal(t, text, o.Data)
			require.Equal(t, sha256.Sum256(text), o.Digest)
			var copied bytes.Buffer
			info, err := b.ReadObject(ctx, events.StoreScripts, "a/1", &copied)
			require.NoError(t, err)
			require.True(t, bytes.Equal(text, copied.Bytes()))
			require.EqualValues(t, size, info.Size)
		}
		require.EqualValues(t, 2, messages(t, b), "one part and the description: the older objects' parts are gone")
		_, err = b.GetObject(ctx, events.StoreScripts, "a/1", 4)
		require.ErrorIs(t, err, bus.ErrTooLarge)

		require.ErrorContains(t, b.PutObject(ctx, events.StoreScripts, "a/1", iotest.TimeoutReader(strings.NewReader("half"))), "timeout")
		require.EqualValues(t, 2, messages(t, b), "an upload that broke off leaves no parts")

		require.NoError(t, b.DeleteObject(ctx, events.StoreScripts, "a/1"))
		require.NoError(t, b.DeleteObject(ctx, events.StoreScripts, "a/1"))
		_, err = get("a/1")
		require.ErrorIs(t, err, bus.ErrNotFound)
		require.EqualValues(t, 1, messages(t, b))
	})
}

func messages(t testing.TB, b *bus.Bus) uint64 {
	s, err := b.JetStream().Stream(t.Context(), "OBJ_"+events.StoreScripts)
	require.NoError(t, err)
	return s.CachedInfo().State.Msgs
}

// Other clients read our objects, and we read theirs.
func TestObjectsOfOtherClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		theirs, err := b.JetStream().ObjectStore(t.Context(), events.StoreScripts)
		require.NoError(t, err)
		text := bytes.Repeat([]byte("x"), 300_000)
		require.NoError(t, b.PutObject(t.Context(), events.StoreScripts, "a/1", bytes.NewReader(text)))
		got, err := theirs.GetBytes(t.Context(), "a/1")
		require.NoError(t, err)
		require.Equal(t, text, got)

		text = append(text, 'y')
		_, err = theirs.PutString(t.Context(), "a/1", string(text))
		require.NoError(t, err)
		o, err := b.GetObject(t.Context(), events.StoreScripts, "a/1", 1_000_000)
		require.NoError(t, err)
		require.Equal(t, text, o.Data)

		require.NoError(t, b.DeleteObject(t.Context(), events.StoreScripts, "a/1"))
		list, err := theirs.List(t.Context())
		require.Error(t, err, "%v", list)
	})
}

func TestObjectsAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		_, err := b.Objects(ctx, "none")
		require.ErrorIs(t, err, bus.ErrNotFound)
		list, err := b.Objects(ctx, events.StoreScripts)
		require.NoError(t, err)
		require.Empty(t, list)

		const many = 700 // more than a page
		for i := range many {
			require.NoError(t, b.PutObject(ctx, events.StoreScripts, fmt.Sprintf("tool/%d", i), strings.NewReader("x")))
		}
		require.NoError(t, b.PutObject(ctx, events.StoreScripts, "tool/0", strings.NewReader("again")))
		require.NoError(t, b.DeleteObject(ctx, events.StoreScripts, "tool/1"))
		list, err = b.Objects(ctx, events.StoreScripts)
		require.NoError(t, err)
		require.Len(t, list, many-1)
		last := list[len(list)-1]
		digest := sha256.Sum256([]byte("again"))
		require.Equal(t, bus.ObjectInfo{Name: "tool/0", Size: 5, Digest: &digest, StoredAt: last.StoredAt}, last)
		require.False(t, last.StoredAt.IsZero())

		one, err := b.StatObject(ctx, events.StoreScripts, "tool/0")
		require.NoError(t, err)
		require.Equal(t, last, one)
		for store, name := range map[string]string{events.StoreScripts: "tool/1", "none": "tool/0"} {
			_, err = b.StatObject(ctx, store, name)
			require.ErrorIs(t, err, bus.ErrNotFound)
			require.Equal(t, name == "tool/1", errors.Is(err, bus.ErrDeleted))
		}
	})
}

// Of two that write one name at once, one is told.
func TestObjectWrittenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		require.ErrorIs(t, b.PutObject(t.Context(), events.StoreScripts, "a/1", meanwhile(func() {
			require.NoError(t, b.PutObject(t.Context(), events.StoreScripts, "a/1", strings.NewReader("other")))
		})), bus.ErrConflict)
		o, err := b.GetObject(t.Context(), events.StoreScripts, "a/1", 100)
		require.NoError(t, err)
		require.Equal(t, "other", string(o.Data))
		require.EqualValues(t, 2, messages(t, b))
	})
}

// meanwhile is an empty object during whose reading something happens.
type meanwhile func()

func (m meanwhile) Read([]byte) (int, error) {
	m()
	return 0, io.EOF
}
