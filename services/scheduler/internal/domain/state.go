package domain

import (
	"fmt"
	"time"

	"kanade/libs/events"
)

// State is the scheduler's fold of the log up to Position. It is saved and continued; what is not saved (heartbeats, and
// what is waiting to be decided) is rebuilt.
type State struct {
	Position  uint64               `json:"position"`
	Fleet     Fleet                `json:"fleet"`
	Execs     map[string]*Exec     `json:"execs"`
	Schedules map[string]*Schedule `json:"schedules"`
	// Zone is what "local" means; empty before the installation's first fact.
	Zone string `json:"zone,omitempty"`
	// ZoneSeq is the last sequence of the installation's aggregate.
	ZoneSeq uint64 `json:"zone_seq,omitempty"`

	// Touched names what may have a next step since the last look: execs to close, schedules to arm or to progress.
	Touched Touched `json:"-"`
}

// Touched is what has changed since somebody last looked.
type Touched struct {
	Execs, Schedules map[string]struct{}
}

// New is the state before the first fact.
func New() *State {
	s := &State{Fleet: Fleet{}, Execs: map[string]*Exec{}, Schedules: map[string]*Schedule{}}
	s.TouchAll()
	return s
}

// TouchAll asks for a look at everything: what a sweep does.
func (s *State) TouchAll() {
	s.Touched = Touched{Execs: map[string]struct{}{}, Schedules: map[string]struct{}{}}
	for id := range s.Execs {
		s.Touched.Execs[id] = struct{}{}
	}
	for id := range s.Schedules {
		s.Touched.Schedules[id] = struct{}{}
	}
}

// Local is the zone that "local" means; UTC until the installation says otherwise.
func (s *State) Local() *time.Location {
	if loc, err := time.LoadLocation(s.Zone); err == nil {
		return loc
	}
	return time.UTC
}

// BusyExec reports whether an exec of the schedule still runs somewhere.
func (s *State) BusyExec(scheduleID string) bool {
	for _, x := range s.Execs {
		if x.ScheduleID == scheduleID && x.Busy() {
			return true
		}
	}
	return false
}

// Apply takes one fact in. Facts at or before Position are ignored. A fact that can't be decoded moves the position and is
// an *events.DecodeError: it says nothing that anybody could act on.
func (s *State) Apply(e events.Event, seq uint64, at time.Time) error {
	if seq <= s.Position {
		return nil
	}
	s.Position = seq
	if f, ok, err := events.RunFactOf(e); err != nil {
		return err
	} else if ok {
		s.run(f, seq, at)
		return nil
	}
	switch e.Aggregate() {
	case events.AggregateExec, events.AggregateSchedule, events.AggregateAgent, events.AggregateConfig:
	default:
		return nil
	}
	p, err := e.Payload()
	if err != nil {
		return err
	}
	switch p := p.(type) {
	case events.AgentSeen:
		a := s.Fleet.get(p.PCID)
		a.AgentSeen, a.Known, a.LastSeq = p, true, seq
		s.touchIntervals()
	case events.AgentGrouped:
		a := s.Fleet.get(p.PCID)
		a.Groups, a.LastSeq = p.Groups, seq
		s.touchIntervals()
	case events.InstallationSaved:
		s.Zone, s.ZoneSeq = p.Zone, seq
		s.TouchAll()
	case events.ScheduleSaved:
		s.schedule(p.ID, seq).change(Version{Seq: seq, At: at, Document: p.DocumentRevision.Document})
	case events.ScheduleDeleted:
		s.schedule(p.ID, seq).change(Version{Seq: seq, At: at, Deleted: true})
	case events.ScheduleTicked:
		s.schedule(p.ID, seq).ticked(p)
	case events.ScheduleProgressed:
		s.schedule(p.ID, seq).progressed(p.Changes)
	default:
		return s.exec(p, e.Subject, seq, at)
	}
	return nil
}

func (s *State) schedule(id string, seq uint64) *Schedule {
	x := s.Schedules[id]
	if x == nil {
		x = &Schedule{ID: id}
		s.Schedules[id] = x
	}
	x.LastSeq = seq
	s.Touched.Schedules[id] = struct{}{}
	return x
}

// touchIntervals asks for a look at the schedules that fire endpoint by endpoint: an endpoint has come or changed.
func (s *State) touchIntervals() {
	for id, x := range s.Schedules {
		if _, _, ok := x.interval(); ok {
			s.Touched.Schedules[id] = struct{}{}
		}
	}
}

// Heard notes a heartbeat by the broker's time of arrival.
func (s *State) Heard(pc string, at, now time.Time) {
	a := s.Fleet.get(pc)
	was := a.Alive(now)
	if at.After(a.HeardAt) {
		a.HeardAt = at
	}
	if !was && a.Alive(now) {
		s.touchIntervals()
	}
}

// exec applies a fact of an exec's own aggregate.
func (s *State) exec(p events.Payload, id string, seq uint64, at time.Time) error {
	x := s.Execs[id]
	if x == nil {
		if _, ok := p.(events.ExecRequested); !ok {
			return nil // it has expired, and this is its aftermath
		}
		x = &Exec{ID: id}
		s.Execs[id] = x
	}
	x.LastSeq = seq
	s.Touched.Execs[id] = struct{}{}
	switch p := p.(type) {
	case events.ExecRequested:
		x.ScheduleID = p.ScheduleID
		if p.Nominal != nil {
			x.Nominal = *p.Nominal
		}
	case events.ExecPlanned:
		x.plan(p, seq, at)
		for _, skipped := range p.Skipped {
			s.settle(x, skipped.PCID, false, at)
		}
	case events.WaveReleased:
	case events.WaveDispatched:
		x.dispatched(p.Wave, seq, at)
	case events.ExecClosed:
		x.Outcome = p.Outcome
		x.shrink()
	case events.ExecExpired:
		for _, pc := range x.expire(seq, at) {
			s.settle(x, pc, false, at)
		}
		delete(s.Execs, id)
	default:
		return fmt.Errorf("apply %s of exec %s: no such fact", p.EventType(), id)
	}
	return nil
}

// run applies what an endpoint says of an exec.
func (s *State) run(f events.RunFact, seq uint64, at time.Time) {
	x := s.Execs[f.ExecID]
	if x == nil {
		return
	}
	t, changed := x.run(f, seq, at)
	if !changed {
		return
	}
	s.Touched.Execs[x.ID] = struct{}{}
	if t.State.Final() {
		s.settle(x, f.PCID, t.State == events.StateSucceeded, at)
		x.shrink()
	}
}

func (s *State) settle(x *Exec, pc string, succeeded bool, at time.Time) {
	if schedule := s.Schedules[x.ScheduleID]; schedule != nil {
		schedule.settle(pc, x.ID, succeeded, at)
		s.Touched.Schedules[schedule.ID] = struct{}{}
	}
}
