package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent/internal/domain"
)

func TestRunsOnceWhatIsHeardTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.put(events.BucketAgentGroups, testPC, `{"groups":["tokyo"]}`)
		s.start()
		settle(time.Second)
		c := command("r1")
		s.send(wire.SubjectCommandAll, c)
		s.send(wire.SubjectCommandGroup("tokyo"), c)
		s.send(wire.SubjectCommandPC(testPC), c)
		settle(3 * time.Minute) // several catch-ups
		require.Equal(t, 1, s.exec.starts())
		require.Equal(t, ran("r1"), s.kinds())
		f := s.facts()[2]
		require.Equal(t, "r1", f.Stdout.Text)
		require.Equal(t, events.ResultID("r1", testPC), f.ResultID)
		require.Equal(t, 0, *f.Code)
	})
}

func TestCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.send(wire.SubjectCommandAll, command("before-all"))
		s.send(wire.SubjectCommandPC(testPC), command("before-pc"))
		stop := s.start()
		settle(time.Minute)
		require.Equal(t, ran("before-pc"), s.kinds(), "what the fleet was told before an agent existed is not for it")
		stop()
		s.send(wire.SubjectCommandAll, command("away-all"))
		settle(time.Hour)
		s.start()
		settle(time.Second)
		require.Equal(t, append(ran("before-pc"), ran("away-all")...), s.kinds())
	})
}

func TestJoinsAndLeavesGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		stop := s.start()
		settle(time.Second)
		tokyo := wire.SubjectCommandGroup("tokyo")
		s.send(tokyo, command("too-early"))
		settle(time.Second)
		s.put(events.BucketAgentGroups, testPC, `{"groups":["tokyo"]}`)
		s.send(tokyo, command("just-joined"))
		settle(time.Second)
		require.Equal(t, ran("just-joined"), s.kinds(), "stored after the membership, before the subscription")

		s.put(events.BucketAgentGroups, testPC, `{"groups":[]}`)
		settle(time.Second)
		s.send(tokyo, command("left"))
		settle(time.Minute)
		stop()
		s.put(events.BucketAgentGroups, testPC, `{"groups":["osaka"]}`)
		settle(time.Second)
		s.send(wire.SubjectCommandGroup("osaka"), command("joined-while-away"))
		s.start()
		settle(time.Second)
		require.Equal(t, append(ran("just-joined"), ran("joined-while-away")...), s.kinds())
	})
}

func TestGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		s.put(events.BucketScriptCurrent, "pinned", "2.0.0")
		s.put(events.BucketScriptStatus, "revoked", "REVOKED")
		s.put(events.BucketScriptStatus, testJob, "ACTIVE")
		past := time.Now().Add(-time.Minute)
		for request, change := range map[string]func(*wire.Command){
			"version_pin":         func(c *wire.Command) { c.ID = "pinned" },
			"revoked":             func(c *wire.Command) { c.ID = "revoked" },
			"deadline_passed":     func(c *wire.Command) { c.DeadlineAt = &past },
			"shell_not_supported": func(c *wire.Command) { c.Shell = wire.ShellCmd },
			"run_as_not_supported": func(c *wire.Command) {
				c.RunAs = wire.RunAsUser
			},
			"first-gate-wins": func(c *wire.Command) { c.ID, c.DeadlineAt = "pinned", &past },
		} {
			s.send(wire.SubjectCommandPC(testPC), command(request, change))
		}
		settle(time.Second)
		require.Zero(t, s.exec.starts())
		codes := map[string]int{}
		for _, f := range s.facts() {
			if f.Kind == events.RunKindSkipped {
				if f.Code != nil {
					codes[f.RequestID] = *f.Code
				}
				if f.RequestID != "first-gate-wins" {
					require.Equal(t, f.RequestID, f.Reason)
				}
			}
		}
		require.Equal(t, map[string]int{"version_pin": 124, "revoked": 126, "deadline_passed": 125, "first-gate-wins": 124}, codes)
	})
}

// A follower that lags behind the pin, or behind the end of a revocation, makes nobody skip: the leader is asked. When all
// is well it is not.
func TestGatesAskTheLeaderBeforeASkip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for name, stale := range map[string]string{events.BucketScriptCurrent: "0.9.0", events.BucketScriptStatus: "REVOKED"} {
			s.follower(name, testJob, stale)
		}
		var questions atomic.Int64
		_, err := s.bus.Conn().Subscribe("$JS.API.STREAM.MSG.GET.*", func(m *nats.Msg) {
			if strings.Contains(m.Subject, ".KV_script_") {
				questions.Add(1)
			}
		})
		require.NoError(t, err)
		s.put(events.BucketScriptCurrent, testJob, "1.0.0")
		s.put(events.BucketScriptStatus, testJob, "ACTIVE")
		s.put(events.BucketScriptCurrent, "pinned", "2.0.0")
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("free", func(c *wire.Command) { c.ID = "free" }))
		settle(time.Second)
		require.Equal(t, ran("free"), s.kinds())
		require.Zero(t, questions.Load())

		s.send(wire.SubjectCommandAll, command("lagging"))
		settle(time.Second)
		require.Equal(t, append(ran("free"), ran("lagging")...), s.kinds())
		require.EqualValues(t, 2, questions.Load())

		s.follower(events.BucketScriptCurrent, "pinned", "0.9.0")
		s.send(wire.SubjectCommandAll, command("pinned", func(c *wire.Command) { c.ID = "pinned" }))
		settle(time.Second)
		require.Contains(t, s.kinds(), "pinned:skipped=version_pin")
		facts := s.facts()
		require.Contains(t, facts[len(facts)-1].Detail, "2.0.0", "what the leader says")
	})
}

// While only a follower answers, a command that it would have skipped waits; it is neither skipped nor run.
func TestGateWaitsForTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.follower(events.BucketScriptCurrent, testJob, "0.9.0")
		js, name := s.bus.JetStream(), "KV_"+events.BucketScriptCurrent
		require.NoError(t, js.DeleteStream(t.Context(), name))
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1"))
		settle(time.Minute)
		require.Equal(t, []string{"r1:received"}, s.kinds())
		require.NoError(t, s.bus.Ensure(t.Context(), bustest.Limits()))
		s.put(events.BucketScriptCurrent, testJob, "1.0.0")
		settle(10 * time.Second)
		require.Equal(t, ran("r1"), s.kinds())
	})
}

func TestStoppedExecIsNotRunAfterAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		jitter := uint64(600)
		s.deps.Jitter = func(n time.Duration) time.Duration {
			require.Equal(t, 10*time.Minute, n)
			return 5 * time.Minute
		}
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1", func(c *wire.Command) { c.JitterSecs = &jitter }))
		settle(time.Minute)
		s.put(events.BucketExecStopped, testExec, "killed")
		settle(5 * time.Minute)
		require.Equal(t, []string{"r1:received", "r1:skipped=exec_stopped"}, s.kinds())
	})
}

// A kill that was said while nobody could hear it keeps the next attempt from starting; a cancelled exec lets go on what has
// begun.
func TestStopBetweenAttempts(t *testing.T) {
	for word, want := range map[string]struct {
		state  string
		starts int
	}{"killed": {"killed", 1}, "cancelled": {"failed", 4}, "halted": {"failed", 4}} {
		t.Run(word, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.start()
				settle(time.Second)
				s.send(wire.SubjectCommandAll, command("r1", func(c *wire.Command) {
					c.Script, c.Retry = "fail 1", &wire.RetrySpec{Max: 3, BackoffSecs: 360}
				}))
				settle(time.Minute)
				s.put(events.BucketExecStopped, testExec, word)
				settle(time.Hour)
				require.Equal(t, want.starts, s.exec.starts())
				require.Equal(t, []string{"r1:received", "r1:started", "r1:finished=" + want.state}, s.kinds())
			})
		})
	}
}

// Who was away when the exec was stopped looks it up when the connection is back. Of a killed one whatever runs, backs off,
// waits in the queue or in its jitter ends then; of a cancelled one only what has not begun.
func TestStopIsHeededOnReturn(t *testing.T) {
	for word, state := range map[string]string{"killed": "killed", "cancelled": ""} {
		t.Run(word, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.deps.Jitter = func(n time.Duration) time.Duration { return n - time.Second }
				w := &cable{broker: s.br}
				s.deps.Bus = w.dial(t)
				s.limit = 2
				s.start()
				settle(time.Second)
				jitter, long := uint64(7200), func(c *wire.Command) { c.TimeoutSecs = 36000 }
				s.send(wire.SubjectCommandAll, command("jitter", func(c *wire.Command) { c.JitterSecs = &jitter }))
				settle(time.Second)
				s.send(wire.SubjectCommandAll, command("back-off", func(c *wire.Command) {
					c.Script, c.Retry = "fail 1", &wire.RetrySpec{Max: 3, BackoffSecs: 1200}
				}))
				s.send(wire.SubjectCommandAll, command("runs", long, func(c *wire.Command) { c.Script = "sleep 3h" }))
				s.send(wire.SubjectCommandAll, command("queue"))
				s.send(wire.SubjectCommandAll, command("other", func(c *wire.Command) { c.ExecID = "another" }))
				settle(time.Minute)
				w.cut()
				settle(time.Minute)
				s.put(events.BucketExecStopped, testExec, word)
				settle(3 * time.Minute)
				w.mend()
				settle(5 * time.Second)
				kinds := s.kinds()
				require.Contains(t, kinds, "jitter:skipped=exec_stopped")
				require.Contains(t, kinds, "queue:skipped=exec_stopped")
				for _, request := range []string{"runs", "back-off"} {
					if ended := request + ":finished=" + state; state != "" {
						require.Contains(t, kinds, ended)
					} else {
						require.False(t, slices.ContainsFunc(kinds, func(k string) bool { return strings.HasPrefix(k, request+":finished") }), kinds)
					}
				}
				settle(24 * time.Hour)
				kinds = s.kinds()
				require.Subset(t, kinds, ran("other"))
				require.NotContains(t, kinds, "jitter:started")
				require.NotContains(t, kinds, "queue:started")
				if state == "" {
					require.Contains(t, kinds, "runs:finished=succeeded")
					require.Equal(t, 4, s.exec.started[events.ResultID("back-off", testPC)])
				} else {
					require.Equal(t, 1, s.exec.started[events.ResultID("back-off", testPC)])
				}
			})
		})
	}
}

// A connection is back and the bucket's leader is not yet: the question is asked again, and no attempt waits for it.
func TestStopIsAskedUntilItIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1", func(c *wire.Command) {
			c.Script, c.Retry = "fail 1", &wire.RetrySpec{Max: 1, BackoffSecs: 10}
		}))
		s.send(wire.SubjectCommandAll, command("r2", func(c *wire.Command) { c.Script, c.TimeoutSecs = "sleep 1h", 7200 }))
		settle(time.Second)
		require.NoError(t, s.bus.JetStream().DeleteStream(t.Context(), "KV_"+events.BucketExecStopped))
		settle(time.Minute)
		require.Contains(t, s.kinds(), "r1:finished=failed")
		require.Equal(t, 2, s.exec.started[events.ResultID("r1", testPC)])
		require.NoError(t, s.bus.Ensure(t.Context(), bustest.Limits()))
		s.put(events.BucketExecStopped, testExec, "killed")
		settle(time.Minute)
		require.Contains(t, s.kinds(), "r2:finished=killed")
	})
}

// Whatever has waited for a place looks whether its exec was stopped, however short it has waited.
func TestStopIsSeenFromTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.limit = 1
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("first", func(c *wire.Command) { c.ExecID, c.Script = "another", "sleep 1s" }))
		s.send(wire.SubjectCommandAll, command("second"))
		s.send(wire.SubjectCommandAll, command("third"))
		settle(100 * time.Millisecond)
		s.put(events.BucketExecStopped, testExec, "cancelled")
		settle(time.Minute)
		require.Equal(t, 1, s.exec.starts())
		require.Contains(t, s.kinds(), "second:skipped=exec_stopped")
		require.Contains(t, s.kinds(), "third:skipped=exec_stopped")
	})
}

// A strict command that has waited while the connection was lost does not begin without knowing that it may.
func TestStrictDoesNotBeginUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.deps.Jitter = func(n time.Duration) time.Duration { return n - time.Second }
		w := &cable{broker: s.br}
		s.deps.Bus = w.dial(t)
		s.start()
		settle(time.Second)
		jitter := uint64(600)
		s.send(wire.SubjectCommandAll, command("free", func(c *wire.Command) { c.JitterSecs = &jitter }))
		s.send(wire.SubjectCommandAll, command("strict", func(c *wire.Command) {
			c.JitterSecs, c.Staleness = &jitter, wire.Staleness{Mode: wire.StalenessStrict, MaxCacheAge: "1m"}
		}))
		settle(time.Minute)
		w.cut()
		settle(time.Hour)
		w.mend()
		settle(time.Minute)
		require.Subset(t, s.kinds(), ran("free"))
		require.Contains(t, s.kinds(), "strict:skipped=stale")
	})
}

// What can't be started has failed, for a reason that machines read; what had run before has not.
func TestNotStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		attempts := 0
		s.exec.plays = func(_ context.Context, _ string, c Script, _ io.Writer) (Exit, error) {
			if attempts++; c.Body == "first" && attempts == 1 {
				return Exit{Code: 1}, nil
			}
			return Exit{}, fmt.Errorf("%w: no room", domain.ErrNotStarted)
		}
		s.start()
		settle(time.Second)
		retry := func(c *wire.Command) { c.Script, c.Retry = c.RequestID, &wire.RetrySpec{Max: 1, BackoffSecs: 10} }
		s.send(wire.SubjectCommandAll, command("first", retry))
		settle(time.Minute)
		s.send(wire.SubjectCommandAll, command("never", retry))
		settle(time.Minute)
		require.Equal(t, 4, s.exec.starts())
		facts := s.facts()
		first, never := facts[2], facts[5]
		require.Equal(t, "attempt 2: the script could not be started: no room", first.Reason)
		require.Empty(t, first.Detail)
		require.Equal(t, events.StateFailed, never.State)
		require.Equal(t, events.ReasonNotStarted, never.Reason)
		require.Equal(t, "the script could not be started: no room", never.Detail)
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1", func(c *wire.Command) { c.Script = "stuck"; c.TimeoutSecs = 3600 }))
		settle(time.Second)
		require.NoError(t, s.bus.Conn().Publish(wire.SubjectKill(testExec), nil))
		settle(time.Second)
		require.Equal(t, []string{"r1:received", "r1:started", "r1:finished=killed"}, s.kinds())
	})
}

func TestTimeoutRetryAndSuccessCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("slow", func(c *wire.Command) {
			c.Script, c.TimeoutSecs, c.Retry = "stuck", 10, &wire.RetrySpec{Max: 2, BackoffSecs: 60}
		}))
		s.send(wire.SubjectCommandAll, command("three", func(c *wire.Command) { c.Script, c.SuccessCodes = "fail 3", []int{0, 3} }))
		s.send(wire.SubjectCommandAll, command("four", func(c *wire.Command) { c.Script = "fail 4" }))
		settle(5 * time.Minute)
		require.Equal(t, 3, s.exec.started[events.ResultID("slow", testPC)])
		require.Contains(t, s.kinds(), "slow:finished=timed_out")
		require.Contains(t, s.kinds(), "three:finished=succeeded")
		require.Contains(t, s.kinds(), "four:finished=failed")
		for _, f := range s.facts() {
			if f.RequestID == "slow" && f.Kind == events.RunKindFinished {
				require.Equal(t, "timeout after 10s", f.Reason)
				require.Equal(t, 150*time.Second, f.FinishedAt.Sub(f.StartedAt))
			}
		}
	})
}

func TestLimitKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ctx, cancel := context.WithCancel(context.Background())
		d := s.deps
		d.Bus = s.bus
		done := make(chan error, 1)
		go func() { done <- Run(ctx, Config{ID: testPC, Data: s.dir, Limit: 1}, d) }()
		settle(time.Second)
		var want []string
		for i := range 20 {
			script := fmt.Sprintf("sleep %dms", 100+i)
			want = append(want, script)
			s.send(wire.SubjectCommandAll, command(fmt.Sprintf("r%02d", i), func(c *wire.Command) { c.Script = script }))
		}
		settle(time.Minute)
		require.Equal(t, want, s.exec.bodies())
		cancel()
		require.NoError(t, <-done)
	})
}

func TestAdHocRunIsAnsweredInTheWiresWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		answers, err := s.bus.Conn().SubscribeSync("results.>")
		require.NoError(t, err)
		defer answers.Unsubscribe()
		adhoc := func(c *wire.Command) { c.ID, c.Version, c.ExecID = wire.AdHocJobID, wire.AdHocVersion, "" }
		s.send(wire.SubjectCommandPC(testPC), command("r1", adhoc))
		s.send(wire.SubjectCommandPC(testPC), command("r2", adhoc, func(c *wire.Command) { c.Script, c.TimeoutSecs = "stuck", 1 }))
		past := time.Now().Add(-time.Hour)
		s.send(wire.SubjectCommandPC(testPC), command("r3", adhoc, func(c *wire.Command) { c.DeadlineAt = &past }))
		settle(time.Minute)
		got := map[string]wire.ExecResult{}
		for range 3 {
			m, err := answers.NextMsg(time.Second)
			require.NoError(t, err)
			r, err := wire.DecodeExecResult(m.Data)
			require.NoError(t, err)
			require.Equal(t, "results."+r.RequestID, m.Subject)
			got[r.RequestID] = r
		}
		require.Equal(t, "r1", got["r1"].Stdout)
		r2, r3 := got["r2"], got["r3"]
		require.Equal(t, wire.EndTimeout, r2.Ended())
		_, skipped := r3.Skip()
		require.True(t, skipped)
		require.Equal(t, wire.ExitDeadline, r3.ExitCode)
		require.Empty(t, s.kinds())
	})
}

// An endpoint is announced only when it hears: whatever the fleet is told because of its first heartbeat reaches it.
func TestHearsBeforeItIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		s := &site{t: t, br: br, bus: bustest.Dial(t, br), dir: t.TempDir(), exec: newScripted()}
		s.deps = Deps{Executor: s.exec, Logger: slog.New(slog.DiscardHandler)}
		beats := make(chan *nats.Msg, 16)
		_, err := s.bus.Conn().ChanSubscribe(wire.SubjectHeartbeat(testPC), beats)
		require.NoError(t, err)
		s.start()
		settle(time.Minute)
		require.Empty(t, beats, "without streams it hears nothing")
		require.NoError(t, s.bus.Ensure(t.Context(), bustest.Limits()))
		<-beats
		s.send(wire.SubjectCommandAll, command("r1"))
		settle(2 * time.Second)
		require.Equal(t, ran("r1"), s.kinds())
	})
}

func TestHeartbeatAndPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		beats, err := s.bus.Conn().SubscribeSync(wire.SubjectHeartbeat(testPC))
		require.NoError(t, err)
		defer beats.Unsubscribe()
		stop := s.start()
		settle(5 * time.Minute)
		n, _, err := beats.Pending()
		require.NoError(t, err)
		require.InDelta(t, 11, n, 1)
		m, err := beats.NextMsg(time.Second)
		require.NoError(t, err)
		h, err := wire.DecodeHeartbeat(m.Data)
		require.NoError(t, err)
		require.Equal(t, testPC, h.PCID)
		require.Equal(t, Version, h.AgentVersion)
		pong, err := s.bus.Conn().Request(wire.SubjectPing(testPC), nil, time.Second)
		require.NoError(t, err)
		h, err = wire.DecodeHeartbeat(pong.Data)
		require.NoError(t, err)
		require.Nil(t, h.AgentRSSBytes)
		stop()
	})
}

func TestCleanStopKillsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		stop := s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1", func(c *wire.Command) { c.Script = "stuck" }))
		settle(time.Second)
		stop()
		require.Equal(t, []string{"r1:received", "r1:started", "r1:finished=killed"}, s.kinds())
		require.Equal(t, "agent stopped", s.facts()[2].Reason)
		s.start()
		settle(2 * time.Minute)
		require.Equal(t, 1, s.exec.starts())
	})
}

// A broker that is away for a day costs no fact, and their order holds.
func TestBrokerAwayForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		var want []string
		for i := range 5 {
			request := fmt.Sprintf("r%d", i)
			script := fmt.Sprintf("sleep %dh", i+1)
			s.send(wire.SubjectCommandAll, command(request, func(c *wire.Command) { c.Script, c.TimeoutSecs = script, 90000 }))
			want = append(want, request+":received", request+":started")
		}
		settle(time.Second)
		require.ElementsMatch(t, want, s.kinds())
		bustest.Restart(t, s.br, 24*time.Hour)
		settle(5 * time.Minute)
		kinds := s.kinds()
		require.Equal(t, []string{
			"r0:finished=succeeded", "r1:finished=succeeded", "r2:finished=succeeded", "r3:finished=succeeded", "r4:finished=succeeded",
		}, kinds[len(kinds)-5:])
		require.Len(t, kinds, 15)
		require.Equal(t, 5, s.exec.starts())
	})
}

// A log that is full refuses; nothing is lost when it has room again.
func TestLogFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		room := s.resize(events.StreamLog, 1)
		for i := range 3 {
			s.send(wire.SubjectCommandAll, command(fmt.Sprintf("r%d", i)))
		}
		settle(time.Hour)
		require.Equal(t, 3, s.exec.starts())
		require.Empty(t, s.kinds())
		s.resize(events.StreamLog, room)
		settle(2 * time.Minute)
		require.ElementsMatch(t, slices.Concat(ran("r0"), ran("r1"), ran("r2")), s.kinds())
	})
}

func TestUnreadableCommandsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Second)
		for _, bad := range []string{"", "{", `{"id":"x"}`, `[]`} {
			_, err := s.bus.JetStream().Publish(t.Context(), wire.SubjectCommandAll, []byte(bad))
			require.NoError(t, err)
		}
		data, err := json.Marshal(command("a.*.b"))
		require.NoError(t, err)
		_, err = s.bus.JetStream().Publish(t.Context(), wire.SubjectCommandAll, data)
		require.NoError(t, err)
		s.send(wire.SubjectCommandAll, command("good"))
		settle(3 * time.Minute)
		require.Equal(t, ran("good"), s.kinds())
	})
}

// An EXEC that was made anew begins at 1 again; a position from the old one must not hide it.
func TestExecMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		stop := s.start()
		settle(time.Second)
		for i := range 5 {
			s.send(wire.SubjectCommandAll, command(fmt.Sprintf("old%d", i)))
		}
		settle(2 * time.Minute)
		stop()
		require.NoError(t, s.bus.JetStream().DeleteStream(t.Context(), events.StreamExec))
		require.NoError(t, s.bus.Ensure(t.Context(), bustest.Limits()))
		s.send(wire.SubjectCommandAll, command("new"))
		s.start()
		settle(time.Minute)
		require.Subset(t, s.kinds(), ran("new"))
		require.Equal(t, 1, len(slices.DeleteFunc(s.kinds(), func(k string) bool { return k != "new:started" })))
	})
}

// A command that comes long after it was sent (its sender stalled, somebody said it again) is not run when its exec has been
// stopped meanwhile; one that comes at once is not held up by asking.
func TestCommandThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.start()
		settle(time.Minute)
		sent := time.Now()
		require.NoError(t, s.bus.PutView(t.Context(), events.BucketExecStopped, testExec, []byte("killed"), 1))
		settle(3 * time.Second)
		data, err := command("late").MarshalJSON()
		require.NoError(t, err)
		require.NoError(t, s.bus.Conn().PublishMsg(&nats.Msg{Subject: wire.SubjectCommandAll, Data: data, Header: nats.Header{
			events.HeaderSentAt: {sent.UTC().Format(time.RFC3339Nano)},
		}}))
		settle(time.Second)
		require.Contains(t, s.kinds(), "late:skipped=exec_stopped")
		require.Empty(t, s.exec.bodies())
	})
}

// Nothing begins after the deadline: not what has waited for its jitter, and no further attempt.
func TestNothingBeginsAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.deps.Jitter = func(n time.Duration) time.Duration { return n - time.Second }
		s.start()
		settle(time.Second)
		deadline := time.Now().Add(time.Hour)
		jitter := uint64(7200)
		s.send(wire.SubjectCommandAll, command("waits", func(c *wire.Command) { c.JitterSecs, c.DeadlineAt = &jitter, &deadline }))
		s.send(wire.SubjectCommandAll, command("retries", func(c *wire.Command) {
			c.Script, c.DeadlineAt, c.Retry = "fail 1", &deadline, &wire.RetrySpec{Max: 5, BackoffSecs: 1500}
		}))
		settle(5 * time.Hour)
		require.NotContains(t, s.kinds(), "waits:started")
		require.Contains(t, s.kinds(), "waits:skipped=deadline_passed")
		require.Contains(t, s.kinds(), "retries:finished=failed")
		require.Equal(t, 3, s.exec.starts(), "at once, after 25 and after 50 minutes")
	})
}
