package projector

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// Who waits for a feed that gets on asks the broker nothing, which opens a file for each answer. Where it
// stands still because the rest is gone, he is told within askEvery.
func TestReachAsksOnlyWhoStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		last := add(t, b, requested("e1"), requested("e2"), requested("e3"))
		asked, err := b.Conn().SubscribeSync("$JS.API.STREAM.MSG.GET." + events.StreamLog)
		require.NoError(t, err)
		f := &feed{stream: events.StreamLog, bus: b, logger: bustest.Logger(t)}

		began, batches := time.Now(), 100
		go func() {
			for n := range batches {
				time.Sleep(askEvery - pollEvery)
				f.progress(uint64(n+1), time.Now())
			}
		}()
		require.NoError(t, f.reach(t.Context(), uint64(batches)))
		require.Less(t, time.Since(began), time.Duration(batches)*askEvery)
		synctest.Wait()
		n, _, err := asked.Pending()
		require.NoError(t, err)
		require.Zero(t, n)

		behind := &feed{stream: events.StreamLog, bus: b, logger: bustest.Logger(t)}
		behind.progress(last, time.Now())
		began = time.Now()
		require.NoError(t, behind.reach(t.Context(), last+1))
		require.LessOrEqual(t, time.Since(began), askEvery)
		synctest.Wait()
		n, _, err = asked.Pending()
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}
