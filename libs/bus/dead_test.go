package bus_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestParkedOnceWhateverTheBrokerRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		d := bus.Dead{Handler: "projector", Once: true, Reason: errors.New("no\nenvelope"), Message: bus.RawMsg{
			Stream: events.StreamLog, Subject: "results.x", Seq: 7, Data: []byte("poison"),
			Header: events.Header{"ce-id": {"a", "b"}, "Nats-TTL": {"1s"}, events.HeaderMsgID: {"a"}, bus.MetadataExpected: {"9"}, "none": {}},
		}}
		for range 2 {
			require.NoError(t, b.Park(t.Context(), d))
			pause(time.Hour) // longer than message ids are remembered
		}
		n, err := b.LastSeq(t.Context(), events.StreamDead)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		m, _, err := b.Get(t.Context(), events.StreamDead, 1)
		require.NoError(t, err)
		require.Equal(t, "dead.projector.LOG.7", m.Subject)
		require.Equal(t, "poison", string(m.Data))
		for name, want := range map[string]string{
			bus.HeaderDeadReason: "no envelope", bus.HeaderDeadHandler: "projector", bus.HeaderDeadStream: "LOG", bus.HeaderDeadSequence: "7",
			bus.HeaderDeadSubject: "results.x", "ce-id": "a", events.HeaderMsgID: "projector/LOG/7",
		} {
			require.Equal(t, []string{want}, m.Header[name], name)
		}
		for _, name := range []string{"Nats-TTL", bus.MetadataExpected, bus.HeaderDeadBody} {
			require.NotContains(t, m.Header, name)
		}
	})
}

func TestParkedMessageIsNeverTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		require.NoError(t, b.Park(t.Context(), bus.Dead{
			Handler: "work", Reason: errors.New(strings.Repeat("é", events.MaxPayload)),
			Message: bus.RawMsg{Stream: events.StreamLog, Seq: 1, Data: make([]byte, events.MaxPayload)},
		}))
		m, ok, err := b.LastRaw(t.Context(), events.StreamDead, "dead.work")
		require.NoError(t, err)
		require.True(t, ok)
		require.Empty(t, m.Data)
		require.Equal(t, []string{"omitted"}, m.Header[bus.HeaderDeadBody])
		require.Equal(t, []string{strings.Repeat("é", 2<<10) + " …"}, m.Header[bus.HeaderDeadReason])
	})
}
