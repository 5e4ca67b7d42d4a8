package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler/internal/domain"
)

// Kinds of timers. A tick's key is its instant, which all schedules share that are looked at then; a wave's and an expiry's is
// the exec, housekeeping's the clock; its generation is the day.
const (
	TimerTick         = "tick"
	TimerWave         = "wave"
	TimerExpiry       = "expiry"
	TimerHousekeeping = "housekeeping"
)

// Source names the scheduler in envelopes; Actor is who it is when nobody else is.
const (
	Source = "/kanade/scheduler"
	Actor  = events.Actor("service:scheduler")
)

// step is one thing to be done: an append, or a timer.
type step struct {
	// exec, schedule or kill is touched again when the step fails.
	exec, schedule, kill, pc string
	do                       func(ctx context.Context, now time.Time) error
}

// stepsAtOnce bounds how many appends are under way.
const stepsAtOnce = 16

func (s *Supervisor) steps(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		var again <-chan time.Time
		if failed := s.take(ctx); failed {
			again = time.After(retryEvery)
		}
		select {
		case <-s.nudge:
		case <-again:
		case <-sweep.C:
			s.mu.Lock()
			s.state.TouchAll()
			clear(s.armed) // whatever timer is missing is set again; one that is there stays
			s.lookAgain()
			s.mu.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}

// take takes every step that is due, and reports whether one has to be tried again.
func (s *Supervisor) take(ctx context.Context) (failed bool) {
	now, err := s.bus.Now(ctx)
	if err != nil {
		return true
	}
	s.mu.Lock()
	if !s.caughtUp() {
		s.mu.Unlock()
		return false
	}
	if now.Before(s.passed) {
		now = s.passed // Now is behind by the way of an answer
	}
	steps := s.next(now)
	s.mu.Unlock()
	errs := make([]error, len(steps))
	var group errgroup.Group
	group.SetLimit(stepsAtOnce)
	for i, x := range steps {
		group.Go(func() error { errs[i] = x.do(ctx, now); return nil })
	}
	_ = group.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, err := range errs {
		if err == nil || ctx.Err() != nil {
			continue
		}
		if errors.Is(err, bus.ErrConflict) {
			continue // another scheduler was first, or the fold is behind: the fact that is there asks for the next look
		}
		failed = true
		s.logger.Warn("step failed; trying again", "exec", steps[i].exec, "schedule", steps[i].schedule, "pc", steps[i].pc, "error", err)
		s.touch(steps[i])
	}
	return failed
}

func (s *Supervisor) touch(x step) {
	if x.exec != "" {
		s.state.Touched.Execs[x.exec] = struct{}{}
	}
	if x.kill != "" {
		s.state.Touched.Kills[x.kill] = struct{}{}
	}
	if x.schedule != "" {
		s.state.Touched.Schedules[x.schedule] = struct{}{}
	}
}

// next lists the steps that what was touched asks for, and forgets that it was touched. The lock is held.
func (s *Supervisor) next(now time.Time) []step {
	var steps []step
	for id, h := range s.lost {
		if fact, expected, ok := s.state.Fleet.Seen(h); ok {
			steps = append(steps, step{pc: id, do: func(ctx context.Context, now time.Time) error {
				return s.append(ctx, fact, expected, now, events.NewActor("agent", id), events.DeriveID(id, "seen", strconv.FormatUint(expected, 10)))
			}})
		} else {
			delete(s.lost, id)
		}
	}
	if s.state.ZoneSeq == 0 {
		steps = append(steps, step{do: s.install})
	}
	day, begins := domain.NextDay(s.state.Day, now)
	steps = append(steps, s.arm(step{}, bus.Timer{Kind: TimerHousekeeping, Key: events.ClockID, Generation: day, At: begins})...)
	for _, id := range slices.Sorted(maps.Keys(s.state.Touched.Execs)) {
		if x := s.state.Execs[id]; x != nil {
			steps = append(steps, s.execSteps(x, now)...)
		} else {
			delete(s.armed, timerKey(TimerExpiry, id))
			delete(s.armed, timerKey(TimerWave, id))
		}
	}
	for id := range s.state.Touched.Kills {
		steps = append(steps, s.killAgain(id))
	}
	clear(s.state.Touched.Kills)
	looked := map[time.Time][]string{}
	for _, id := range slices.Sorted(maps.Keys(s.state.Touched.Schedules)) {
		x := s.state.Schedules[id]
		if x == nil {
			delete(s.looks, id)
			continue
		}
		steps = append(steps, s.progressSteps(x)...)
		if at, ok := s.look(x, now); ok {
			looked[at] = append(looked[at], id)
		}
	}
	for at, schedules := range looked {
		steps = append(steps, s.wakeStep(at, now, schedules)...)
	}
	clear(s.state.Touched.Execs)
	clear(s.state.Touched.Schedules)
	return steps
}

// install stores the installation's zone at the first start ever.
func (s *Supervisor) install(ctx context.Context, now time.Time) error {
	p := events.InstallationSaved{ID: events.InstallationID, Zone: hostZone()}
	return s.append(ctx, p, 0, now, Actor, events.DeriveID(events.InstallationID, "saved"))
}

// execSteps closes or halts an exec, lets its waves go out, and sets its next timers.
func (s *Supervisor) execSteps(x *domain.Exec, now time.Time) []step {
	var steps []step
	expected, trace := x.LastSeq, x.TraceParent
	end := func(p events.Payload, words ...string) step {
		return step{exec: x.ID, do: func(ctx context.Context, now time.Time) error {
			return s.append(bus.WithTraceParent(ctx, trace), p, expected, now, Actor, events.DeriveID(p.AggregateID(), words...))
		}}
	}
	closed, closes := domain.Close(x)
	corrected, lookAt, corrects := domain.Correct(x, now)
	switch next := domain.Advance(x, now); {
	case closes:
		steps = append(steps, end(closed, "closed"))
	case next.Halt != nil:
		steps = append(steps, end(*next.Halt, "halted"))
	case corrects:
		steps = append(steps, end(corrected, "corrected", strconv.FormatUint(expected, 10)))
	default:
		if len(next.Releases) > 0 {
			id := x.ID
			steps = append(steps, step{exec: id, do: func(ctx context.Context, now time.Time) error {
				return s.release(bus.WithTraceParent(ctx, trace), id, now)
			}})
		}
		next.LookAgain(lookAt)
		if !next.LookAt.IsZero() {
			generation := strconv.FormatInt(next.LookAt.UnixNano(), 10)
			steps = append(steps, s.arm(step{exec: x.ID}, bus.Timer{Kind: TimerWave, Key: x.ID, Generation: generation, At: next.LookAt})...)
		}
	}
	if x.Planned {
		generation := strconv.FormatInt(x.ExpiresAt.UnixNano(), 10)
		steps = append(steps, s.arm(step{exec: x.ID}, bus.Timer{Kind: TimerExpiry, Key: x.ID, Generation: generation, At: x.ExpiresAt})...)
	}
	return steps
}

// release lets out what may go out, one wave, which rests on what endpoints have said: the fold has to hold everything
// that the log does. The fact itself asks for the next one.
func (s *Supervisor) release(ctx context.Context, id string, now time.Time) error {
	if err := s.Fresh(ctx); err != nil {
		return err
	}
	sequence, err := s.bus.LastSeq(ctx, events.StreamExec)
	if err != nil {
		return fmt.Errorf("release wave of exec %s: %w", id, err)
	}
	var p events.WaveReleased
	var expected uint64
	s.Read(func(state *domain.State) {
		x := state.Execs[id]
		if x == nil {
			return
		}
		next := domain.Advance(x, now)
		if len(next.Releases) == 0 {
			return // what was due then is not any more; the fact that changed it asks for its own look
		}
		r := next.Releases[0]
		p, expected = events.WaveReleased{ExecID: id, Wave: r.Wave, From: r.From, To: r.To, ExecStreamSequence: sequence}, x.LastSeq
		if r.Late {
			p.DeadlineAt, p.ExpiresAt = x.Late(r.Wave, now, state.Retain().History)
		}
	})
	if p.ExecID == "" {
		return nil
	}
	return s.append(ctx, p, expected, now, Actor, events.DeriveID(id, "released", strconv.Itoa(p.Wave), strconv.Itoa(p.From)))
}

// killAgain tells endpoints again that an exec was killed: one of them has just said that it has its command, or that it
// has started it.
func (s *Supervisor) killAgain(id string) step {
	return step{kill: id, do: func(context.Context, time.Time) error {
		return s.bus.Conn().Publish(wire.SubjectKill(id), nil)
	}}
}

// progressLimit is how many endpoints one fact of progress bears: far from what a message may be.
const progressLimit = 10_000

// progressSteps records what the schedule has learned of endpoints.
func (s *Supervisor) progressSteps(x *domain.Schedule) []step {
	if len(x.Pending) == 0 {
		return nil
	}
	p := events.ScheduleProgressed{ID: x.ID}
	pcs := slices.Sorted(maps.Keys(x.Pending))
	for _, pc := range pcs[:min(len(pcs), progressLimit)] {
		p.Changes = append(p.Changes, x.Pending[pc])
	}
	expected := x.LastSeq
	id := events.DeriveID(x.ID, "progressed", strconv.FormatUint(expected, 10))
	return []step{{schedule: x.ID, do: func(ctx context.Context, now time.Time) error {
		return s.append(ctx, p, expected, now, Actor, id)
	}}}
}

func timerKey(kind, key string) string { return kind + "/" + key }

// arm is the step that sets a timer; none when it is known to be set. The lock is held, but not by the step.
func (s *Supervisor) arm(x step, t bus.Timer) []step {
	key := timerKey(t.Kind, t.Key)
	if s.armed[key] == t.Generation {
		return nil
	}
	x.do = func(ctx context.Context, _ time.Time) error {
		if err := s.bus.SetTimer(ctx, t); err != nil {
			return err
		}
		s.mu.Lock()
		s.armed[key] = t.Generation
		s.mu.Unlock()
		return nil
	}
	return []step{x}
}

func (s *Supervisor) append(ctx context.Context, p events.Payload, expected uint64, now time.Time, actor events.Actor, id string) error {
	e, err := events.New(p, events.Meta{ID: id, Source: Source, Time: now, Actor: actor, CorrelationID: p.AggregateID()})
	if err != nil {
		return err
	}
	_, err = s.bus.Append(ctx, e, expected)
	return err
}
