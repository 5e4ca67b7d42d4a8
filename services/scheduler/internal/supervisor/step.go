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
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil
	}
	retry, sweep := time.NewTicker(retryEvery), time.NewTicker(sweepEvery)
	defer retry.Stop()
	defer sweep.Stop()
	for {
		failed := s.take(ctx)
		var again <-chan time.Time
		if failed {
			again = retry.C
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
			delete(s.armed, id)
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
		expected := x.LastSeq
		steps = append(steps, step{exec: x.ID, do: func(ctx context.Context, now time.Time) error {
			return s.append(ctx, closed, expected, now, Actor, events.DeriveID(closed.ExecID, "closed"))
		}})
	}
	if x.Planned {
		if _, armed := s.armed[x.ID]; !armed {
			t := bus.Timer{Kind: TimerExpiry, Key: x.ID, Generation: "1", At: x.ExpiresAt}
			steps = append(steps, step{exec: x.ID, do: func(ctx context.Context, _ time.Time) error { return s.arm(ctx, x.ID, t) }})
		}
	}
	return steps
}

// scheduleSteps first records what the schedule has learned of endpoints, then sets its next timer.
func (s *Supervisor) scheduleSteps(x *domain.Schedule, now time.Time) []step {
	var steps []step
	if len(x.Pending) > 0 {
		p := events.ScheduleProgressed{ID: x.ID}
		for _, pc := range slices.Sorted(maps.Keys(x.Pending)) {
			p.Changes = append(p.Changes, x.Pending[pc])
		}
		expected := x.LastSeq
		id := events.DeriveID(x.ID, "progressed", strconv.FormatUint(expected, 10))
		steps = append(steps, step{schedule: x.ID, do: func(ctx context.Context, now time.Time) error {
			return s.append(ctx, p, expected, now, Actor, id)
		}})
	}
	at, ok := domain.NextTick(x, s.state.Local())
	if !ok {
		at, ok = domain.NextMinute(x, s.state.Fleet, now)
	}
	if !ok {
		return steps
	}
	t := bus.Timer{
		Kind: TimerTick, Key: x.ID, At: at,
		Generation: fmt.Sprintf("%d-%d", x.Current().Seq, at.UnixNano()),
	}
	if s.armed[x.ID] == t.Generation {
		return steps
	}
	return append(steps, step{schedule: x.ID, do: func(ctx context.Context, _ time.Time) error { return s.arm(ctx, x.ID, t) }})
}

// arm sets a timer once; the memory of it only saves asking the broker again.
func (s *Supervisor) arm(ctx context.Context, id string, t bus.Timer) error {
	if err := s.bus.SetTimer(ctx, t); err != nil {
		return err
	}
	s.mu.Lock()
	s.armed[id] = t.Generation
	s.mu.Unlock()
	return nil
}

func (s *Supervisor) append(ctx context.Context, p events.Payload, expected uint64, now time.Time, actor events.Actor, id string) error {
	e, err := events.New(p, events.Meta{ID: id, Source: Source, Time: now, Actor: actor, CorrelationID: p.AggregateID()})
	if err != nil {
		return err
	}
	_, err = s.bus.Append(ctx, e, expected)
	return err
}
