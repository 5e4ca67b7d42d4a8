package supervisor

import (
	"context"
	"strconv"
	"time"

	"kanade/libs/bus"
	"kanade/services/scheduler/internal/domain"
)

// look is when a schedule is to be looked at next. Timers are set for instants, not for schedules: whoever hears that of an
// instant looks at all of them (Claim). A look is noted before its timer is set, so that no timer comes due unnoted.
type look struct {
	at time.Time
	// generation is domain.Schedule.Look's.
	generation string
	claimed    bool
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

// unclaimedEvery is how often looks are searched for that nobody has claimed in time.
const unclaimedEvery = time.Minute

// findUnclaimed asks for a look at the schedules that were to be looked at some time ago, and of which nothing has been heard: the
// timer went to a scheduler that did not know of them, and that one has died since.
func (s *Supervisor) findUnclaimed(ctx context.Context) {
	s.mu.RLock()
	none := len(s.looks) == 0
	s.mu.RUnlock()
	if none {
		return
	}
	now, err := s.bus.Now(ctx)
	if err != nil {
		return // it is tried again in a minute
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, noted := range s.looks {
		if !noted.claimed && now.Sub(noted.at) >= onItsWay {
			delete(s.looks, id)
			s.state.Touched.Schedules[id] = struct{}{}
		}
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
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.again(schedules)
			return err
		}
		if !at.After(now) {
			return nil
		}
		s.armed[timerKey(t.Kind, t.Key)] = t.Generation
		if !at.After(s.passed) { // it came due meanwhile; whom nobody has claimed may have been noted too late
			s.again(schedules)
			s.wake()
		}
		return nil
	}}}
}

// again asks for another look at those schedules that nobody has claimed. The lock is held.
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

// Unclaim gives schedules back to whoever claims them next: something failed.
func (s *Supervisor) Unclaim(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if x, ok := s.looks[id]; ok {
			x.claimed = false
			s.looks[id] = x
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
