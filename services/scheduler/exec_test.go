package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
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

// A long script to many endpoints is stored once, and gone when the exec's time is up.
func TestLongScriptTravelsAsObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		pcs := make([]string, 40)
		for i := range pcs {
			pcs[i] = fmt.Sprintf("pc%d", i)
		}
		body := strings.Repeat("x", 64<<10)
		long := func(r *events.ExecRequested) {
			deadline := time.Now().Add(time.Hour)
			r.Script.Body, r.DeadlineAt = body, &deadline
		}
		commands := make(chan wire.Command, 100)
		_, err := w.bus.Conn().Subscribe("commands.>", func(m *nats.Msg) {
			c, err := wire.DecodeCommand(m.Data)
			if err != nil {
				t.Error(err)
			}
			commands <- c
		})
		require.NoError(t, err)
		w.exec("few", catalog.Target{PCs: pcs[:3]}, long)
		pass(time.Second)
		require.Len(t, commands, 3)
		for range 3 {
			require.Equal(t, body, (<-commands).Script)
		}
		w.exec("many", catalog.Target{PCs: pcs}, long)
		pass(time.Second)
		require.Len(t, commands, 40)
		c := <-commands
		require.Empty(t, c.Script)
		object, err := w.bus.GetObject(t.Context(), events.StoreScripts, c.ScriptObject, 1<<20)
		require.NoError(t, err)
		require.Equal(t, body, string(object.Data))
		require.Equal(t, wire.HexDigest(object.Digest), c.ScriptObjectSHA256)
		pass(2 * time.Hour)
		require.Contains(t, w.types("many"), "expired")
		_, err = w.bus.GetObject(t.Context(), events.StoreScripts, c.ScriptObject, 1<<20)
		require.ErrorIs(t, err, bus.ErrNotFound)
	})
}
