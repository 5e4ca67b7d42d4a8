//go:build unix

package scheduler_test

import (
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/services/scheduler"
)

// A schedule that is not due costs nothing but the sweep: at most one message an hour from each scheduler, which asks for its
// timer once more. What a day of it costs in time of the processor is logged, broker included.
func TestIdleSchedules(t *testing.T) {
	const n = 500
	day := func(schedules int) (out, in uint64, cpu time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			own := bustest.Dial(t, w.broker)
			stop, ready := w.startOn(own, scheduler.Deps{})
			<-ready
			w.job("job", "1")
			for i := range schedules {
				w.schedule(fmt.Sprintf("s-%04d", i), "when: {calendar: {at: '2000-06-01 02:00'}}\ntarget: {all: true}\ntz: Europe/Berlin")
			}
			pass(time.Minute)
			before, used := own.Conn().Stats(), processor(t)
			pass(24 * time.Hour)
			after := own.Conn().Stats()
			out, in, cpu = after.OutMsgs-before.OutMsgs, after.InMsgs-before.InMsgs, processor(t)-used
			stop()
		})
		return out, in, cpu
	}
	emptyOut, emptyIn, emptyCPU := day(0)
	out, in, cpu := day(n)
	require.LessOrEqual(t, out-emptyOut, uint64(25*n))
	t.Logf("an idle schedule a day: %.1f messages sent, %.1f received, %.2f ms of CPU; a scheduler without any: %d, %d, %d ms",
		float64(out-emptyOut)/n, float64(in-emptyIn)/n, float64((cpu-emptyCPU).Microseconds())/1000/n, emptyOut, emptyIn, emptyCPU.Milliseconds())
}

// processor is the time of the processor that this process has used.
func processor(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
