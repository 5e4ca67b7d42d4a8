package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler"
)

func TestExecGoesItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		for _, id := range []string{"pc1", "pc2", "pc3"} {
			w.agent(id, nil)
		}
		pass(time.Second)
		pin := make(chan string, 1)
		w.ears.first = func() {
			value, _, _, _, err := w.bus.GetView(t.Context(), events.BucketScriptCurrent, "job")
			if err != nil {
				t.Error(err)
			}
			pin <- string(value)
		}
		w.exec("x", catalog.Target{All: true})
		require.Equal(t, "1", <-pin, "the version is pinned before the first command is heard")
		pass(10 * time.Second)
		require.Equal(t, []string{"requested", "planned", "wave-released", "wave-dispatched", "closed"}, w.types("x"))
		require.Equal(t, []string{"x/0/commands.all"}, w.ears.of("x"))
		require.Equal(t, []string{"x/0/commands.all"}, w.stored())
		closed := of[events.ExecClosed](w.facts(events.AggregateExec, "x"))[0]
		require.Equal(t, events.OutcomeSucceeded, closed.Outcome)
		require.Equal(t, map[events.TargetState]int{events.StateSucceeded: 3}, closed.Totals.Expected)

		w.exec("y", catalog.Target{PCs: []string{"pc2", "away"}})
		pass(10 * time.Second)
		require.Equal(t, []string{"requested", "planned", "wave-released", "wave-dispatched"}, w.types("y"))
		require.Equal(t, []string{"y/0/commands.pc.away", "y/0/commands.pc.pc2"}, w.ears.of("y"))

		w.exec("z", catalog.Target{Groups: []string{"nobody"}})
		pass(time.Second)
		require.Equal(t, []string{"requested", "planned", "closed"}, w.types("z"))
		require.Equal(t, events.ReasonNoTarget, of[events.ExecClosed](w.facts(events.AggregateExec, "z"))[0].Reason)
	})
}
