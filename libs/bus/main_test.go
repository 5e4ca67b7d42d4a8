package bus_test

import (
	"testing"
	"testing/synctest"
	"time"

	"kanade/libs/bus/bustest"
)

func TestMain(m *testing.M) { bustest.Main(m) }

// pause lets simulated time pass and everything settle.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
