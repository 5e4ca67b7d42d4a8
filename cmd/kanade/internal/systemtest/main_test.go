// Package systemtest tests kanade as a whole: every service with a real broker and a real database, in simulated time, as
// separate processes, and against the clock. It holds tests only.
package systemtest

import (
	"testing"

	"kanade/libs/bus/bustest"
)

func TestMain(m *testing.M) { bustest.Main(m) }
