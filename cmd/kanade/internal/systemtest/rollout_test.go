package systemtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// rolloutsAtOnce is how many rollouts share one theatre.
const rolloutsAtOnce = 10

// TestProveWaves lets rollouts go their way while everything is taken away for moments, commands and results are said
// again later, and an operator kills and cancels. Each wave goes out exactly once and in time, nobody runs twice, nobody
// outside the plan runs, what is stopped in the middle leaves no command behind, and every exec reaches its outcome.
func TestProveWaves(t *testing.T) {
	theatres, seed := extent(t, 100, 3)
	var waves, runs, kills, inTime int
	for n := range theatres {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTheatre(t, seed+uint64(n), 8)
				kills += w.perform()
				all := w.truths()
				w.requireOnce(all)
				inTime += w.requireInTime(all)
				w.requireNothingLeft(func(x *truth) bool { return !x.stopped.IsZero() || x.facts["expired.v1"] > 0 }, all)
				w.requireTruth(all)
				runs += len(w.starts.runs)
				for _, x := range all {
					waves += len(x.released)
				}
			})
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("PROVED %s: %d rollouts, %d waves released, %d of them timed, %d runs, %d stopped by the operator, seed %d",
		t.Name(), theatres*rolloutsAtOnce, waves, inTime, runs, kills, seed)
}

// perform asks for the rollouts, makes trouble, stops some of them, releases what is paused, and waits until all have
// ended.
func (w *theatre) perform() (stopped int) {
	w.open()
	script := rand.New(rand.NewPCG(w.seed, 13))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range rolloutsAtOnce {
			time.Sleep(time.Duration(script.Int64N(int64(25 * time.Second))))
			x := w.exec(w.waves(script))
			pause := time.Duration(script.Int64N(int64(2 * time.Minute)))
			switch script.IntN(5) {
			case 0:
				stopped++
				go func() { time.Sleep(pause); w.intend(x, "kill") }()
			case 1:
				stopped++
				go func() { time.Sleep(pause); w.intend(x, "cancel") }()
			case 2:
				go func() {
					time.Sleep(pause)
					w.intend(x, "pause")
					time.Sleep(pause)
					w.intend(x, "resume")
				}()
			}
			go func() {
				time.Sleep(4 * time.Minute)
				for i, wave := range x.plan.Rollout.Waves {
					if wave.Pause {
						w.insist("POST", "/api/executions/"+x.id+"/release", fmt.Sprintf(`{"wave":%d}`, i))
					}
				}
			}()
		}
	}()
	w.trouble(5 * time.Minute)
	<-done
	w.rest()
	return stopped
}

// extent is how much of a proof is run, and from which seed on: one stage under the race detector. KANADE_SEED repeats one.
func extent(t *testing.T, full, otherwise int) (n int, seed uint64) {
	if n = otherwise; raced {
		n = 1
	}
	if os.Getenv("KANADE_PROVE") == "full" {
		n = full
	}
	return n, drawnSeed(t)
}
