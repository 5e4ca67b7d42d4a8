package systemtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/agent"
	"kanade/services/scheduler"
)

// theatres runs a play on many stages, one after the other; it gives false when one of them failed.
func theatres(t *testing.T, n int, seed uint64, endpoints int, play func(w *theatre)) bool {
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(newTheatre(t, seed+uint64(i), endpoints)) })
		})
		if t.Failed() {
			return false
		}
	}
	return true
}

// TestProveFailureBudget lets rollouts whose scripts fail often go their way under max_failures and under max_parallel,
// while everything is taken away for moments. After a halt nothing goes out; what is too much halts; and with the strict
// budget the endpoints in flight and those that failed are never more than it, at any place in the log.
func TestProveFailureBudget(t *testing.T) {
	n, seed := extent(t, 100, 2)
	var halted, parts, failed int
	ok := theatres(t, n, seed, 10, func(w *theatre) {
		w.failing = 60
		w.budgets()
		all := w.truths()
		w.requireOnce(all)
		for _, x := range w.execs {
			h, p, f := w.requireBudget(x, all[x.id])
			halted, parts, failed = halted+h, parts+p, failed+f
		}
		w.requireNothingLeft(func(x *truth) bool { return !x.stopped.IsZero() || x.facts["expired.v1"] > 0 }, all)
		w.requireTruth(all)
	})
	if ok {
		t.Logf("PROVED %s: %d rollouts, %d halted, %d releases, %d failures, seed %d", t.Name(), n*rolloutsAtOnce, halted, parts, failed, seed)
	}
}

// budgets asks for rollouts with either budget.
func (w *theatre) budgets() {
	w.open()
	script := rand.New(rand.NewPCG(w.seed, 17))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range rolloutsAtOnce {
			time.Sleep(time.Duration(script.Int64N(int64(20 * time.Second))))
			p := w.waves(script)
			amount := &catalog.Amount{Count: 1 + script.IntN(4)}
			if script.IntN(3) == 0 {
				amount = &catalog.Amount{Percent: 10 + script.IntN(40)}
			}
			if i%2 == 0 {
				p.MaxParallel = amount
			} else {
				p.MaxFailures = &catalog.Amount{Count: 1 + script.IntN(2)}
			}
			for k := range p.Rollout.Waves {
				p.Rollout.Waves[k].Pause = false
			}
			if script.IntN(3) == 0 {
				p.Rollout = nil
			}
			w.exec(p)
		}
	}()
	w.trouble(4 * time.Minute)
	<-done
	w.rest()
}

// requireBudget goes through what the log says of an exec, in order.
func (w *theatre) requireBudget(x *rolloutExec, t *truth) (halted, releases, failures int) {
	w.t.Helper()
	if !t.halted.IsZero() {
		halted = 1
	}
	inFlight := map[string]bool{}
	failed := map[string]bool{}
	over := false
	var usedUp time.Time // when more had failed than may
	for _, f := range t.story {
		switch {
		case f.released != nil:
			releases++
			require.False(w.t, over, "exec %s goes on after its halt", x.id)
			// The release looks at everything the log holds; between that look and its fact lies a moment.
			require.False(w.t, !usedUp.IsZero() && f.at.After(usedUp.Add(time.Second)), "exec %s goes on at %s, its budget is used up since %s", x.id, f.at, usedUp)
			for _, pc := range f.released {
				inFlight[pc] = true
			}
		case f.halted:
			over = true
		case f.answered != "":
			delete(inFlight, f.pc)
			switch f.answered {
			case events.StateFailed, events.StateTimedOut, events.StateKilled, events.StateUnknown:
				failed[f.pc] = true
			}
		}
		if most := t.planned.MaxFailures; most != nil && len(failed) > *most && usedUp.IsZero() {
			usedUp = f.at
		}
		if most := t.planned.MaxParallel; most != nil && !over {
			require.LessOrEqual(w.t, len(inFlight)+len(failed), *most, "exec %s: in flight %v, failed %v", x.id, inFlight, failed)
		}
	}
	if most := t.planned.MaxFailures; most != nil && halted > 0 {
		require.Greater(w.t, len(failed), *most, "exec %s halted too early", x.id)
	} else if most != nil && len(failed) > *most {
		for pc, target := range t.targets {
			require.True(w.t, target.heard || target.state == events.StateSkipped, "exec %s: %d failed of %d, and nobody called off %s", x.id, len(failed), *most, pc)
		}
	}
	return halted, releases, len(failed)
}

// TestProveKillOffline kills execs of which endpoints can't hear. Those that are off run nothing of it on return, whatever
// form the exec had and whatever was taken away meanwhile. Those that lose the network while they run, back off between
// attempts, wait for their jitter or in the queue start nothing after it is back, and end what they have soon after.
func TestProveKillOffline(t *testing.T) {
	n, seed := extent(t, 50, 2)
	var execs, away int
	var found posts
	t.Run("off", func(t *testing.T) {
		theatres(t, n, seed, 10, func(w *theatre) {
			k, a := w.killWhileOff()
			execs, away = execs+k, away+a
		})
	})
	t.Run("cut off", func(t *testing.T) {
		theatres(t, (n+1)/2, seed, 6, func(w *theatre) {
			p := w.killWhileCutOff()
			execs, found = execs+len(w.execs), found.plus(p)
		})
	})
	if !t.Failed() {
		require.NotContains(t, found[:], 0, "in one of these places no kill found anybody")
		t.Logf("PROVED %s: %d execs killed, %d times an endpoint was off and ran nothing; of those cut off %d ran, %d backed off, %d waited for their jitter, %d waited in the queue, and none started anything on return, seed %d",
			t.Name(), execs, away, found[0], found[1], found[2], found[3], seed)
	}
}

// killWhileOff kills execs of every form while a third of the endpoints are off.
func (w *theatre) killWhileOff() (execs, away int) {
	script := rand.New(rand.NewPCG(w.seed, 19))
	gone := w.pcs[:3]
	if script.IntN(2) == 0 {
		settle(3 * time.Minute)
	}
	for _, pc := range gone {
		w.cut(pc)
	}
	if script.IntN(2) == 0 {
		settle(3 * time.Minute) // the fleet knows that they are away; otherwise they are expected
	}
	for i := range 8 {
		var p catalog.Plan
		switch i % 4 {
		case 0:
			p.Target = catalog.Target{All: true}
		case 1:
			p.Target = catalog.Target{Groups: []string{"g0", "g1", "g2"}}
		case 2:
			p.Target = catalog.Target{PCs: w.pcs}
		default:
			p = w.waves(script)
		}
		w.exec(p)
		settle(time.Duration(script.Int64N(int64(3 * time.Second))))
	}
	if script.IntN(2) == 0 {
		w.cut("scheduler-a")
		w.change()
	}
	for _, x := range w.execs {
		w.append(events.ExecKilled{ExecID: x.id, Reason: "wrong"})
		x.killed = time.Now()
	}
	if _, runs := w.running["scheduler-a"]; !runs {
		settle(time.Duration(script.Int64N(int64(time.Minute))))
		w.startScheduler("scheduler-a")
	}
	settle(10 * time.Second)
	for _, pc := range gone {
		settle(time.Duration(script.Int64N(int64(10 * time.Minute))))
		w.startEndpoint(pc)
	}
	settle(30 * time.Minute)
	all := w.truths()
	for _, x := range w.execs {
		execs++
		for _, pc := range gone {
			require.Zero(w.t, w.starts.runs[x.id+" "+pc], "%s ran exec %s, which was killed while it was away", pc, x.id)
			away++
		}
		for _, pc := range w.pcs {
			require.LessOrEqual(w.t, w.starts.runs[x.id+" "+pc], 1)
			if at, ran := w.starts.at[x.id+" "+pc]; ran && at.After(x.killed.Add(10*time.Second)) && w.t.Failed() == false {
				require.Fail(w.t, "ran after the kill", "%s began exec %s at %s, killed at %s", pc, x.id, at, x.killed)
			}
		}
		require.Equal(w.t, events.OutcomeKilled, all[x.id].outcome)
	}
	w.requireNothingLeft(func(*truth) bool { return true }, all)
	w.requireTruth(all)
	return execs, away
}

// posts counts what endpoints were doing of an exec when they returned: running it, backing off between two attempts,
// waiting for the jitter, waiting in the queue.
type posts [4]int

func (p posts) plus(q posts) posts {
	for i := range p {
		p[i] += q[i]
	}
	return p
}

// killAttempts is how often the scripts of killWhileCutOff are tried.
const killAttempts = 9

// killWhileCutOff kills execs while half of the endpoints have lost the network in the middle of them.
func (w *theatre) killWhileCutOff() (found posts) {
	script := rand.New(rand.NewPCG(w.seed, 31))
	up := func(most time.Duration) time.Duration { return time.Duration(script.Int64N(int64(most))) }
	played := &labours{by: map[string][]labour{}}
	for _, pc := range w.pcs {
		w.stop(pc)
		w.run(pc, w.cables[pc], func(ctx context.Context, b *bus.Bus) error {
			return agent.Run(ctx, agent.Config{ID: pc, Data: w.data[pc], Heartbeat: time.Minute, Limit: 2},
				agent.Deps{Bus: b, Executor: &labourer{played, pc}, Logger: quiet(w.t)})
		})
	}
	settle(5 * time.Second)
	jitter := catalog.Duration("3h")
	for i, play := range []string{"short", "long", "fail", "short", "fail", "long"} {
		p := catalog.Plan{Target: catalog.Target{All: true}}
		if i%2 == 1 {
			p.Target = catalog.Target{PCs: w.pcs}
		}
		if i == 0 {
			p.Jitter = &jitter // before the places are taken, for it is drawn in one
		}
		doc, err := p.Document()
		require.NoError(w.t, err)
		x := &rolloutExec{id: events.DeriveID("killed", fmt.Sprint(w.seed, i)), plan: p}
		w.execs = append(w.execs, x)
		w.append(events.ExecRequested{
			ExecID: x.id, JobID: "job", Version: "1", JobSequence: 1, JobHash: "h", Plan: doc,
			Script: events.Script{Shell: "sh", Body: play, TimeoutSecs: 7200, RunAs: "system"},
			Retry:  &events.Retry{Max: killAttempts - 1, BackoffSecs: uint64(60 + script.IntN(180))},
		})
		settle(time.Second + up(3*time.Second))
	}
	settle(up(2 * time.Minute))
	gone := w.pcs[:len(w.pcs)/2]
	for _, pc := range gone {
		w.cables[pc].pull()
	}
	settle(up(3 * time.Minute))
	if script.IntN(2) == 0 {
		w.cut("scheduler-a")
	}
	for _, x := range w.execs {
		w.append(events.ExecKilled{ExecID: x.id, Reason: "wrong"})
		x.killed = time.Now()
	}
	if _, runs := w.running["scheduler-a"]; !runs {
		settle(up(time.Minute))
		w.startScheduler("scheduler-a")
	}
	settle(10 * time.Second)
	for _, pc := range gone {
		settle(up(4 * time.Minute)) // the kill is said again after 130 s: to some it is, to some it is not
		w.cables[pc].plug()
		b := w.running[pc].bus
		for !b.Connected() {
			settle(100 * time.Millisecond)
		}
		returned := b.ConnectedAt()
		settle(10 * time.Second)
		for _, x := range w.execs {
			if i := played.requireEnded(w, x, pc, returned); i >= 0 {
				found[i]++
			}
		}
	}
	settle(4 * time.Hour)
	all := w.truths()
	for _, x := range w.execs {
		for _, pc := range w.pcs {
			if target := all[x.id].targets[pc]; target.state != played.state(x.id+" "+pc) {
				require.Fail(w.t, "another state than that of the script", "%s says %s of exec %s: %v", pc, target.state, x.id, played.by[x.id+" "+pc])
			}
		}
		require.Equal(w.t, events.OutcomeKilled, all[x.id].outcome)
	}
	for _, pc := range gone {
		found = found.plus(w.waited(pc))
	}
	w.requireNothingLeft(func(*truth) bool { return true }, all)
	w.requireTruth(all)
	return found
}

// waited counts in which execs an endpoint had the command and did not begin: those with a jitter, and the others.
func (w *theatre) waited(pc string) (found posts) {
	facts, err := w.operator.Load(w.t.Context(), events.AggregateRun, pc, 0)
	require.NoError(w.t, err)
	said := map[string]bool{}
	for _, f := range facts {
		run, _, err := events.RunFactOf(f.Event)
		require.NoError(w.t, err)
		said[run.ExecID+" "+string(run.Kind)] = true
	}
	for _, x := range w.execs {
		switch {
		case !said[x.id+" received"] || said[x.id+" started"]:
		case x.plan.Jitter != nil:
			found[2]++
		default:
			found[3]++
		}
	}
	return found
}

// labour is one attempt of one run. Exit is nil while it runs.
type labour struct {
	began, ended time.Time
	exit         *agent.Exit
}

// labours are the attempts of every run, by exec and endpoint.
type labours struct {
	mu sync.Mutex
	by map[string][]labour
}

// state is that of a run of a killed exec whose attempts were these.
func (l *labours) state(key string) events.TargetState {
	l.mu.Lock()
	defer l.mu.Unlock()
	tries := l.by[key]
	if len(tries) == 0 {
		return events.StateSkipped
	}
	switch last := tries[len(tries)-1].exit; {
	case last == nil:
		return events.StateRunning
	case last.Signal == "" && last.Code == 0:
		return events.StateSucceeded
	case last.Signal == "" && len(tries) == killAttempts:
		return events.StateFailed
	default:
		return events.StateKilled
	}
}

// requireEnded demands that nothing of a killed exec began after the endpoint was back, and that nothing of it runs any
// more. It gives what the endpoint was doing then, as a place in posts; -1: nothing that an executor knows of.
func (l *labours) requireEnded(w *theatre, x *rolloutExec, pc string, returned time.Time) int {
	w.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	tries := l.by[x.id+" "+pc]
	for i, try := range tries {
		require.False(w.t, try.began.After(returned), "%s began attempt %d of exec %s at %s, back since %s", pc, i+1, x.id, try.began, returned)
		require.NotNil(w.t, try.exit, "%s still runs exec %s, back since %s", pc, x.id, returned)
	}
	if len(tries) == 0 {
		return -1
	}
	switch last := tries[len(tries)-1]; {
	case !last.ended.Before(returned):
		return 0
	case last.exit.Code != 0 && len(tries) < killAttempts:
		return 1
	default:
		return -1
	}
}

// labourer is the executor of one endpoint. Its scripts are words: short, long and fail.
type labourer struct {
	*labours
	pc string
}

func (*labourer) Supports(string) bool { return true }

func (x *labourer) Run(ctx context.Context, _ string, s agent.Script, env []string, _, _ io.Writer) (agent.Exit, error) {
	i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, "KANADE_EXEC_ID=") })
	if i < 0 {
		return agent.Exit{}, errors.New("no exec id")
	}
	key := strings.TrimPrefix(env[i], "KANADE_EXEC_ID=") + " " + x.pc
	x.mu.Lock()
	n := len(x.by[key])
	x.by[key] = append(x.by[key], labour{began: time.Now()})
	x.mu.Unlock()
	lasts, exit := 2*time.Second, agent.Exit{}
	switch s.Body {
	case "long":
		lasts = time.Hour
	case "fail":
		exit.Code = 3
	}
	select {
	case <-time.After(lasts):
	case <-ctx.Done():
		exit = agent.Exit{Signal: "kill"}
	}
	x.mu.Lock()
	x.by[key][n].ended, x.by[key][n].exit = time.Now(), &exit
	x.mu.Unlock()
	return exit, nil
}

// TestProveTwoSchedulers lets two schedulers work at once, each of them stalled now and then for seconds in the middle of
// its work: what it writes goes out when it wakes. No fact is there twice, no timer is lost, no command is stored twice,
// and no run is started twice.
func TestProveTwoSchedulers(t *testing.T) {
	n, seed := extent(t, 50, 2)
	var stalls, commands, runs int
	ok := theatres(t, n, seed, 8, func(w *theatre) {
		s, stored := w.stall()
		stalls, commands, runs = stalls+s, commands+stored, runs+len(w.starts.runs)
		all := w.truths()
		w.requireOnce(all)
		for _, x := range w.execs {
			require.Equal(w.t, 1, all[x.id].facts["expired.v1"], "exec %s", x.id)
		}
		w.requireTruth(all)
	})
	if ok {
		t.Logf("PROVED %s: %d rollouts, %d stalls, %d commands, %d runs, seed %d", t.Name(), n*rolloutsAtOnce, stalls, commands, runs, seed)
	}
}

// stall lets rollouts go their way under two schedulers that stall.
func (w *theatre) stall() (stalls, stored int) {
	w.open()
	w.stop("scheduler-a")
	ways := []*sleeper{{broker: w.broker}, {broker: w.broker}}
	for i, way := range ways {
		w.run(fmt.Sprintf("sleeper-%d", i), way, func(ctx context.Context, b *bus.Bus) error {
			return scheduler.Run(ctx, scheduler.Config{}, scheduler.Deps{Bus: b, Logger: quiet(w.t)})
		})
	}
	ids := w.watchCommands()
	script, sleeps := rand.New(rand.NewPCG(w.seed, 23)), rand.New(rand.NewPCG(w.seed, 29))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range rolloutsAtOnce {
			time.Sleep(time.Duration(script.Int64N(int64(20 * time.Second))))
			p := w.waves(script)
			for k := range p.Rollout.Waves {
				p.Rollout.Waves[k].Pause = false
			}
			w.exec(p)
		}
	}()
	for until := time.Now().Add(5 * time.Minute); time.Now().Before(until); {
		settle(time.Duration(sleeps.Int64N(int64(4 * time.Second))))
		way := ways[sleeps.IntN(2)]
		way.sleep()
		stalls++
		settle(time.Duration(sleeps.Int64N(int64(8 * time.Second))))
		way.wake()
	}
	<-done
	w.rest()
	for id, n := range ids() {
		require.Equal(w.t, 1, n, "command %s was stored %d times", id, n)
		stored++
	}
	return stalls, stored
}

// watchCommands counts what is stored in EXEC, by message id.
func (w *theatre) watchCommands() func() map[string]int {
	b := bustest.Dial(w.t, w.broker)
	var mu sync.Mutex
	ids := map[string]int{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Follow(ctx, bus.FollowConfig{Stream: events.StreamExec}, func(_ context.Context, batch []bus.RawMsg) error {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range batch {
				ids[m.Header[events.HeaderMsgID][0]]++
			}
			return nil
		})
	}()
	return func() map[string]int {
		cancel()
		require.NoError(w.t, <-ended)
		return ids
	}
}

// sleeper is a way to the broker on which everything stands still for a while: what is written goes out when it wakes,
// and what has come is read then.
type sleeper struct {
	broker *broker.Broker
	mu     sync.Mutex
	asleep chan struct{} // closed when it wakes; nil while awake
}

func (s *sleeper) sleep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asleep = make(chan struct{})
}

func (s *sleeper) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.asleep)
	s.asleep = nil
}

// slept waits while it sleeps.
func (s *sleeper) slept() {
	s.mu.Lock()
	asleep := s.asleep
	s.mu.Unlock()
	if asleep != nil {
		<-asleep
	}
}

func (s *sleeper) InProcessConn() (net.Conn, error) {
	c, err := s.broker.InProcessConn()
	if err != nil {
		return nil, err
	}
	d := &drowsy{Conn: c, sleeper: s, more: make(chan struct{}, 1), closed: make(chan struct{})}
	go d.pump()
	return d, nil
}

// drowsy writes from a goroutine of its own: the client writes under its lock, and whoever waits for a lock stops the
// bubble's time, in which alone the broker gives up on a peer that does not read.
type drowsy struct {
	net.Conn
	sleeper *sleeper
	mu      sync.Mutex
	written []byte
	more    chan struct{}
	closed  chan struct{}
	once    sync.Once
}

func (d *drowsy) Write(p []byte) (int, error) {
	d.mu.Lock()
	d.written = append(d.written, p...)
	d.mu.Unlock()
	select {
	case d.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (d *drowsy) pump() {
	for {
		select {
		case <-d.more:
		case <-d.closed:
			return
		}
		d.sleeper.slept()
		d.mu.Lock()
		written := d.written
		d.written = nil
		d.mu.Unlock()
		if len(written) == 0 {
			continue // a pipe hands over nothing, too
		}
		if _, err := d.Conn.Write(written); err != nil {
			return // whoever reads the connection is told
		}
	}
}

func (d *drowsy) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	d.sleeper.slept()
	return n, err
}

func (d *drowsy) Close() error {
	d.once.Do(func() { close(d.closed) })
	return d.Conn.Close()
}

// TestProveTruth plays one of each and compares the read model with the fold of the log.
func TestProveTruth(t *testing.T) {
	n, seed := extent(t, 30, 1)
	targets := 0
	for name, play := range map[string]func(*theatre){
		"waves": func(w *theatre) { w.perform() }, "budgets": func(w *theatre) { w.budgets() }, "stalls": func(w *theatre) { w.stall() },
	} {
		t.Run(name, func(t *testing.T) {
			theatres(t, n, seed, 8, func(w *theatre) {
				play(w)
				all := w.truths()
				w.requireTruth(all)
				for _, x := range all {
					targets += len(x.targets)
				}
			})
		})
	}
	if !t.Failed() {
		t.Logf("PROVED %s: %d targets of %d execs, seed %d", t.Name(), targets, 3*n*rolloutsAtOnce, seed)
	}
}
