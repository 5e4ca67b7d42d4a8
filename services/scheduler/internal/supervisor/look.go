package supervisor

import (
	"context"
	"slices"
	"strconv"
	"time"

	"kanade/libs/bus"
	"kanade/services/scheduler/internal/domain"
)

// look is when a schedule is to be looked at next. Timers are set for instants, not for schedules: whoever hears that of an
// instant looks at all of them (Claim). A look is noted before its timer is set; one that is noted when the timer of its instant,
// which others share, has been heard gets another one (tooLate).
type look struct {
	at time.Time
	// generation is domain.Schedule.Look's.
	generation string
	claimed    bool
	// failures in a row, since it was noted.
	failures int
}

// onItsWay is how long after its instant a look may still be about to be claimed. Afterwards another scheduler has had it.
const onItsWay = 5 * time.Second

// look notes when a schedule is looked at next; false when that is noted already, or nothing is due until something changes.
// What is due already is looked at now. A look that has come is not replaced until its tick is in the ledger, or has been on its
// way for long: whoever claims it asks for the next one. The lock is held.
func (s *Supervisor) look(x *domain.Schedule, now time.Time) (at time.Time, ok bool) {
	if noted, ok := s.looks[x.ID]; ok && !noted.claimed && !noted.at.After(now) && now.Sub(noted.at) < onItsWay && x.Mark.Before(noted.at) {
		return time.Time{}, false
	}
	at, generation, ok := x.Look(s.state.Fleet, s.state.Jobs, s.state.Present(x, now))
	if !ok || s.looks[x.ID].generation == generation {
		return time.Time{}, false
	}
	s.looks[x.ID] = look{at: at, generation: generation}
	if at.Before(now) {
		at = now
	}
	return at.UTC(), true
}

// unclaimedEvery is how often looks are searched for that nobody has claimed in time: with onItsWay it is less than a minute,
// after which a tick is late (domain.OnTime).
const unclaimedEvery = 15 * time.Second

// watchLooks searches for them until ctx ends.
func (s *Supervisor) watchLooks(ctx context.Context) error {
	for {
		if err := wait(ctx, unclaimedEvery); err != nil {
			return nil
		}
		s.findUnclaimed(ctx)
	}
}

// findUnclaimed asks for a look at the schedules that were to be looked at some time ago, and that nobody has claimed here: another
// scheduler heard the timer and found nothing due, or did not know of them and has died since, or a timer could not be set.
func (s *Supervisor) findUnclaimed(ctx context.Context) {
	s.mu.RLock()
	none := len(s.looks) == 0
	s.mu.RUnlock()
	if none {
		return
	}
	now, err := s.bus.Now(ctx)
	if err != nil {
		return // it is tried again soon
	}
	found := false
	s.mu.Lock()
	for id, noted := range s.looks {
		if !noted.claimed && now.Sub(noted.at) >= onItsWay {
			delete(s.looks, id)
			s.state.Touched.Schedules[id] = struct{}{}
			found = true
		}
	}
	s.mu.Unlock()
	if found {
		s.wake()
	}
}

// lookAgain lets every schedule be noted anew with its timer. The lock is held.
func (s *Supervisor) lookAgain() {
	for id, x := range s.looks {
		x.generation = ""
		s.looks[id] = x
	}
}

// wakeStep sets the timer of an instant at which schedules are looked at; none when it is known to be set. What is due now
// gets a timer of its own, whichever was set for that instant before. The lock is held, but not by the step.
func (s *Supervisor) wakeStep(at, now time.Time, schedules []string) []step {
	t := bus.Timer{Kind: TimerTick, Key: at.Format(time.RFC3339Nano), Generation: "at", At: at}
	if !at.After(now) {
		t.Generation = "now-" + strconv.FormatInt(now.UnixNano(), 10)
	} else if s.armed[timerKey(t.Kind, t.Key)] == t.Generation {
		return nil
	}
	return []step{{do: func(ctx context.Context, _ time.Time) error {
		err := s.bus.SetTimer(ctx, t)
		if err == nil && at.After(now) && s.tooLate(at, schedules) {
			t.Generation = "late"
			err = s.bus.SetTimer(ctx, t)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.again(schedules)
		} else if at.After(now) {
			s.armed[timerKey(t.Kind, t.Key)] = t.Generation
		}
		return err
	}}}
}

// tooLate reports whether the timer of an instant has been heard here although somebody has not claimed some of its schedules,
// which were noted after that.
func (s *Supervisor) tooLate(at time.Time, schedules []string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return !at.After(s.passed) && slices.ContainsFunc(schedules, func(id string) bool {
		x, ok := s.looks[id]
		return ok && !x.claimed && x.at.Equal(at)
	})
}

// again asks for another look at those schedules that nobody has claimed: their timer could not be set. The lock is held.
func (s *Supervisor) again(schedules []string) {
	for _, id := range schedules {
		if x, ok := s.looks[id]; ok && !x.claimed {
			delete(s.looks, id)
			s.state.Touched.Schedules[id] = struct{}{}
		}
	}
}

// Claim takes the schedules that are to be looked at at an instant that has come, or before, each once.
func (s *Supervisor) Claim(at time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass(at)
	delete(s.armed, timerKey(TimerTick, at.UTC().Format(time.RFC3339Nano)))
	var ids []string
	for id, x := range s.looks {
		if !x.claimed && !x.at.After(at) {
			x.claimed = true
			s.looks[id] = x
			ids = append(ids, id)
		}
	}
	return ids
}

// Later gives back schedules that were claimed, and failed: they are looked at again a second later, after each failure in a row
// twice as long, up to five minutes. A timer that can't be set is no error: findUnclaimed takes its place.
func (s *Supervisor) Later(ctx context.Context, ids []string, now time.Time) {
	retries := map[time.Time]bool{}
	s.mu.Lock()
	for _, id := range ids {
		x, ok := s.looks[id]
		if !ok {
			continue
		}
		x.at, x.claimed = now.Add(min(time.Second<<min(x.failures, 10), 5*time.Minute)).UTC(), false
		x.failures++
		s.looks[id], retries[x.at] = x, true
	}
	s.mu.Unlock()
	for at := range retries {
		t := bus.Timer{Kind: TimerTick, Key: at.Format(time.RFC3339Nano), Generation: "again", At: at}
		if err := s.bus.SetTimer(ctx, t); err != nil {
			s.logger.Warn("set timer; the schedules are looked for", "at", at, "error", err)
		}
	}
}

// Looked asks when some schedules are to be looked at next, which were claimed and of which nothing was due; where something
// was, that follows from the tick in the log.
func (s *Supervisor) Looked(ids []string) {
	if len(ids) == 0 {
		return
	}
	s.mu.Lock()
	for _, id := range ids {
		s.state.Touched.Schedules[id] = struct{}{}
	}
	s.mu.Unlock()
	s.wake()
}
