//go:build unix

package agent

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// An agent of its own process is killed with SIGKILL again and again while it runs scripts. Each script appends a line to
// a file, which witnesses that none was started twice; and the log ends up with one end for each.
func TestKilledProcess(t *testing.T) {
	kills := 10
	if testing.Short() {
		kills = 5
	}
	br, err := broker.Start(broker.Config{StoreDir: t.TempDir(), Token: bustest.Token, Listen: "127.0.0.1:0", Logger: bustest.Logger(t)})
	require.NoError(t, err)
	t.Cleanup(br.Shutdown)
	b := bustest.Connect(t, br)
	data, witness := t.TempDir(), filepath.Join(t.TempDir(), "witness")

	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+br.URL(), "AGENT_TEST_DATA="+data)
		require.NoError(t, cmd.Start())
		return cmd
	}
	sent := 0
	for range kills {
		cmd := start()
		// Killed at any moment: while it starts, catches up, runs or tells.
		deadline := time.After(50*time.Millisecond + rand.N(300*time.Millisecond))
		for alive := true; alive; {
			publish(t, b, command(fmt.Sprintf("r%03d", sent), func(c *wire.Command) {
				c.Script = fmt.Sprintf("echo r%03d >>%s; sleep 0.02", sent, witness)
			}))
			sent++
			select {
			case <-deadline:
				alive = false
			case <-time.After(15 * time.Millisecond):
			}
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	last := start()
	var states map[string]int
	require.Eventually(t, func() bool { states = endStates(t, b); return total(states) >= sent }, time.Minute, 100*time.Millisecond)
	require.NoError(t, last.Process.Kill())
	_ = last.Wait()

	require.Equal(t, sent, total(states), "one end for each command")
	text, err := os.ReadFile(witness)
	require.NoError(t, err)
	lines := map[string]int{}
	for _, l := range strings.Fields(string(text)) {
		lines[l]++
		require.Equal(t, 1, lines[l], "%s was started again", l)
	}
	require.GreaterOrEqual(t, len(lines), states["succeeded"])
	require.LessOrEqual(t, len(lines), states["succeeded"]+states["unknown"])
	t.Logf("%d commands, %d kills, %v", sent, kills, states)
}

// endStates counts runs by the state they ended in; a run with two ends counts twice.
func endStates(t *testing.T, b *bus.Bus) map[string]int {
	stored, err := b.Load(t.Context(), events.AggregateRun, testPC, 0)
	require.NoError(t, err)
	states, seen := map[string]int{}, map[string]bool{}
	for _, e := range stored {
		f, ok, err := events.RunFactOf(e.Event)
		require.NoError(t, err)
		if ok && f.Kind == events.RunKindFinished && !seen[e.ID] {
			seen[e.ID] = true
			states[string(f.State)]++
		}
	}
	return states
}

func total(states map[string]int) (n int) {
	for _, k := range states {
		n += k
	}
	return n
}
