package bustest_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
)

func TestMain(m *testing.M) { bustest.Main(m) }

// The server's file stores share one goroutine that reads the clock every 100 ms (package server/ats). The first store
// of the process starts it, the last one that closes ends it. Started inside a bubble it would belong to the bubble:
// every simulated 100 ms would be an event (864 000 a day), and stores of another bubble would read its clock. So Main
// registers once, outside of any bubble and for good. The package is exported by the server but not promised: if this
// test fails after an upgrade of the server, look for what has taken its place.
func TestAccessTimeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bustest.Broker(t)
		stacks := make([]byte, 1<<22)
		stacks = stacks[:runtime.Stack(stacks, true)]
		var clocks []string
		for _, g := range strings.Split(string(stacks), "\n\n") {
			if strings.Contains(g, "server/ats.Register.func1") {
				clocks = append(clocks, g)
			}
		}
		require.Len(t, clocks, 1)
		require.NotContains(t, clocks[0], "synctest bubble")
	})
}

func TestADayIsShort(t *testing.T) {
	real := time.Now()
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		bustest.Connect(t, br)
		begin := time.Now()
		time.Sleep(24 * time.Hour)
		require.Equal(t, 24*time.Hour, time.Since(begin))
	})
	require.Less(t, time.Since(real), time.Minute)
}

func TestStress(t *testing.T) {
	bustest.Stress(t, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
}
