//go:build unix

package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

func TestRealShell(t *testing.T) {
	b := realAgent(t, Deps{})
	next := ends(t, b)
	publish(t, b, command("r1", func(c *wire.Command) {
		c.Script = `echo "hello from $KANADE_PC_ID"; echo warn >&2; exit 3`
	}))
	f := next()
	require.Equal(t, events.StateFailed, f.State)
	require.Equal(t, 3, *f.ExitCode)
	require.Equal(t, "hello from pc-01\n", f.Stdout.Text)
	require.Equal(t, "warn\n", f.Stderr.Text)

	begun := time.Now()
	publish(t, b, command("r2", func(c *wire.Command) { c.Script, c.TimeoutSecs = "sleep 600 & sleep 600", 1 }))
	f = next()
	require.Equal(t, events.StateTimedOut, f.State)
	require.Equal(t, "timeout after 1s", f.Reason)
	require.Less(t, time.Since(begun), 3*time.Second)
}

// BenchmarkRun is one command after another: from publishing it to the end of its run in the log, with an fsync at each
// of the three steps.
func BenchmarkRun(b *testing.B) {
	for name, d := range map[string]Deps{"scripted": {Executor: newScripted()}, "sh": {}} {
		b.Run(name, func(b *testing.B) {
			bus := realAgent(b, d)
			next := ends(b, bus)
			i := 0
			for b.Loop() {
				publish(b, bus, command(fmt.Sprintf("r%d", i), func(c *wire.Command) { c.Script = "true" }))
				next()
				i++
			}
		})
	}
}
