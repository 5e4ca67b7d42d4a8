package bus_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
)

// A batch that breaks off, because the answer does not come or the broker goes away, is an error: it is neither the whole
// nor nothing.
func TestBatchBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b, server := bustest.Connect(t, br), bustest.Connect(t, br)
		read := func(stream string) (n int, err error) {
			for m, err := range b.Batch(t.Context(), stream, 10, jetstreamext.GetBatchSubject(">")) {
				if err != nil {
					return n, err
				}
				require.Equal(t, "half", string(m.Data))
				n++
			}
			return n, nil
		}
		n, err := read("LOG")
		require.NoError(t, err)
		require.Zero(t, n)

		_, err = server.Conn().Subscribe("$JS.API.DIRECT.GET.SILENT", func(*nats.Msg) {})
		require.NoError(t, err)
		_, err = server.Conn().Subscribe("$JS.API.DIRECT.GET.HALF", func(m *nats.Msg) {
			half := nats.NewMsg(m.Reply)
			half.Data = []byte("half")
			half.Header = nats.Header{
				"Nats-Num-Pending": {"1"}, jetstream.StreamHeader: {"HALF"}, jetstream.SequenceHeader: {"1"},
				jetstream.SubjectHeader: {"x"}, jetstream.TimeStampHeaer: {"2000-01-01T00:00:00Z"},
			}
			_ = m.RespondMsg(half)
		})
		require.NoError(t, err)
		require.NoError(t, server.Conn().Flush())
		for stream, want := range map[string]int{"SILENT": 0, "HALF": 1} {
			start := time.Now()
			n, err := read(stream)
			require.ErrorIs(t, err, bus.ErrUnavailable, stream)
			require.Equal(t, want, n, stream)
			require.Equal(t, bus.DefaultTimeout, time.Since(start))
		}
		go func() {
			time.Sleep(time.Second)
			br.Shutdown()
		}()
		start := time.Now()
		_, err = read("SILENT")
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.Equal(t, time.Second, time.Since(start), "a lost connection is noticed at once")
	})
}
