package bus_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
)

// What came due during an outage is handled within a second of its end, however long it was and however often something
// was tried in vain.
func TestLongOutageDelaysNothing(t *testing.T) {
	for _, down := range []time.Duration{3 * time.Second, 47 * time.Second, 40 * time.Minute, 7 * time.Hour} {
		t.Run(down.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				br := bustest.Broker(t)
				b := bustest.Connect(t, br)
				var got fired
				defer startTimers(t, b, func(_ context.Context, timer bus.Timer) error { got.add(timer); return nil })()
				due := time.Now().Add(time.Minute + down/2)
				for i := range 5 {
					require.NoError(t, b.SetTimer(t.Context(), tick(fmt.Sprint(i), due)))
				}
				pause(time.Minute)
				bustest.Restart(t, br, down)
				pause(time.Second)
				require.Len(t, got.all, 5)
			})
		})
	}
}
