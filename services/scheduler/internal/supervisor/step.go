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
	"kanade/services/scheduler/internal/domain"
)

// Kinds of timers. A tick's key is the schedule, an expiry's the exec.
const (
	TimerTick   = "tick"
	TimerExpiry = "expiry"
)

// Source names the scheduler in envelopes; Actor is who it is when nobody else is.
const (
	Source = "/kanade/scheduler"
	Actor  = events.Actor("service:scheduler")
)

// step is one thing to be done: an append, or a timer.
type step struct {
	// exec or schedule is touched again when the step fails.
	exec, schedule, pc string
	do                 func(ctx context.Context, now time.Time) error
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
	for _, id := range slices.Sorted(maps.Keys(s.state.Touched.Execs)) {
		if x := s.state.Execs[id]; x != nil {
			steps = append(steps, s.execSteps(x)...)
		} else {
			delete(s.armed, timerKey(TimerExpiry, id))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.state.Touched.Schedules)) {
		if x := s.state.Schedules[id]; x != nil {
			steps = append(steps, s.scheduleSteps(x, now)...)
		}
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

func (s *Supervisor) execSteps(x *domain.Exec) []step {
	var steps []step
	if closed, ok := domain.Close(x); ok {
		expected, trace := x.LastSeq, x.TraceParent
		steps = append(steps, step{exec: x.ID, do: func(ctx context.Context, now time.Time) error {
			return s.append(bus.WithTraceParent(ctx, trace), closed, expected, now, Actor, events.DeriveID(closed.ExecID, "closed"))
		}})
	}
	if x.Planned {
		steps = append(steps, s.arm(step{exec: x.ID}, bus.Timer{Kind: TimerExpiry, Key: x.ID, Generation: "1", At: x.ExpiresAt})...)
	}
	return steps
}

// progressLimit is how many endpoints one fact of progress bears: far from what a message may be.
const progressLimit = 10_000

// scheduleSteps first records what the schedule has learned of endpoints, then sets its next timer.
func (s *Supervisor) scheduleSteps(x *domain.Schedule, now time.Time) []step {
	var steps []step
	if len(x.Pending) > 0 {
		p := events.ScheduleProgressed{ID: x.ID}
		pcs := slices.Sorted(maps.Keys(x.Pending))
		for _, pc := range pcs[:min(len(pcs), progressLimit)] {
			p.Changes = append(p.Changes, x.Pending[pc])
		}
		expected := x.LastSeq
		id := events.DeriveID(x.ID, "progressed", strconv.FormatUint(expected, 10))
		steps = append(steps, step{schedule: x.ID, do: func(ctx context.Context, now time.Time) error {
			return s.append(ctx, p, expected, now, Actor, id)
		}})
	}
	at, version, ok := domain.NextTick(x, s.state.Local())
	if minute, due := domain.NextMinute(x, s.state.Fleet, now); due && (!ok || minute.Before(at)) {
		at, version, ok = minute, x.Current().Seq, true
	}
	if !ok {
		return steps
	}
	generation := fmt.Sprintf("%d-%d", version, at.UnixNano())
	return append(steps, s.arm(step{schedule: x.ID}, bus.Timer{Kind: TimerTick, Key: x.ID, Generation: generation, At: at})...)
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
