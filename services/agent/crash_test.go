package agent

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent/internal/ledger"
)

// The agent dies after its nth commit, for every n that a run has: its connection is cut in that moment, and its
// successor finds the ledger as it was then. Never are there two starts, and the log always hears one end: the script's
// if it was started by the one who told of it, unknown if the agent died between start and end.
func TestDeathBetweenAnyTwoSteps(t *testing.T) {
	unknown, again := 0, 0
	for n := int64(1); ; n++ {
		died := false
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.send(wire.SubjectCommandPC(testPC), command("r1", func(c *wire.Command) { c.Script = "sleep 5s" }))
			first, started := dieAfter(s, n)
			if died = first; !died {
				require.Equal(t, []string{"r1:received", "r1:started", "r1:finished=succeeded"}, s.kinds())
				return
			}
			s.start()
			settle(3 * time.Minute)
			kinds := s.kinds()
			require.Len(t, kinds, 3, "death after commit %d: %v", n, kinds)
			require.Equal(t, []string{"r1:received", "r1:started"}, kinds[:2])
			switch kinds[2] {
			case "r1:finished=succeeded":
				require.Equal(t, 1, started+s.exec.starts(), "death after commit %d", n)
				again += s.exec.starts()
			case "r1:finished=unknown":
				require.Zero(t, s.exec.starts(), "death after commit %d", n)
				unknown++
			default:
				t.Fatalf("death after commit %d: %v", n, kinds)
			}
		})
		if !died {
			require.Greater(t, n, int64(5), "commits of a run")
			break
		}
	}
	require.Positive(t, unknown, "deaths between start and end")
	require.Positive(t, again, "deaths before the start")
}

// dieAfter runs an agent that dies after its nth commit, leaves its ledger to the site, and tells whether it came so far
// and how often it had started the script until then.
func dieAfter(s *site, n int64) (died bool, started int) {
	b := bustest.Dial(s.t, s.br)
	exec, grave := newScripted(), s.t.TempDir()
	var commits atomic.Int64
	dead := make(chan int, 1)
	d := Deps{Bus: b, Executor: exec, Logger: bustest.Logger(s.t), committed: func(snapshot ledger.Snapshot) {
		if commits.Add(1) == n {
			starts := exec.starts()
			require.NoError(s.t, snapshot(filepath.Join(grave, ledger.FileName)))
			b.Close()
			dead <- starts
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	dir := s.t.TempDir()
	go func() { done <- Run(ctx, Config{ID: testPC, Data: dir}, d) }()
	select {
	case started = <-dead:
		died = true
	case <-time.After(2 * time.Minute):
	}
	cancel()
	<-done
	s.dir = grave
	return died, started
}

// The trace that a command came with goes on after a restart, whether the command was started or not.
func TestTraceSurvivesDeath(t *testing.T) {
	const traceID = "0af7651916cd43dd8448eb211c80319c"
	var ends []events.TargetState
	for n := int64(2); n <= 5; n++ {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			data, err := json.Marshal(command("r1", func(c *wire.Command) { c.Script = "sleep 5s" }))
			require.NoError(t, err)
			_, err = s.bus.JetStream().PublishMsg(t.Context(), &nats.Msg{
				Subject: wire.SubjectCommandPC(testPC), Data: data,
				Header: nats.Header{events.HeaderTraceParent: {"00-" + traceID + "-b7ad6b7169203331-01"}},
			})
			require.NoError(t, err)
			died, _ := dieAfter(s, n)
			require.True(t, died)
			s.start()
			settle(3 * time.Minute)
			stored, err := s.bus.Load(t.Context(), events.AggregateRun, testPC, 0)
			require.NoError(t, err)
			require.Len(t, stored, 3)
			for _, f := range stored {
				require.Contains(t, f.TraceParent, traceID, f.Type)
			}
			ends = append(ends, s.facts()[2].State)
		})
	}
	require.Contains(t, ends, events.StateSucceeded, "deaths before the start")
	require.Contains(t, ends, events.StateUnknown, "deaths after it")
}

// What an agent that was killed while a script wrote left in the spool goes away; what a message names stays.
func TestSpoolIsCleaned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		orphan := filepath.Join(s.dir, "spool", "nobody.stdout")
		require.NoError(t, os.MkdirAll(filepath.Dir(orphan), 0o700))
		require.NoError(t, os.WriteFile(orphan, []byte("x"), 0o600))
		s.start()
		settle(time.Second)
		require.NoFileExists(t, orphan)
	})
}

func TestDataDirectoryInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		d := s.deps
		d.Bus = s.bus
		err := Run(t.Context(), Config{ID: "pc-02", Data: s.dir}, d)
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, s.dir)
	})
}

// A ledger forgets a request only when no copy of it can arrive any more.
func TestLedgerIsPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		stop := s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1"))
		settle(time.Second)
		stop()
		l, err := ledger.Open(s.dir, nil)
		require.NoError(t, err)
		defer l.Close()
		for _, c := range []struct {
			days   int
			pruned int
		}{{13, 0}, {15, 1}} {
			n, err := l.Prune(time.Now().Add(time.Duration(c.days) * 24 * time.Hour))
			require.NoError(t, err)
			require.Equal(t, c.pruned, n)
		}
	})
}
