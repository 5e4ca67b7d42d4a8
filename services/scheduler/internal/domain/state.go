package domain

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// State is the scheduler's fold of the log up to Position. It is saved and continued; what is not saved (heartbeats, and
// what is waiting to be decided) is rebuilt.
type State struct {
	Position uint64 `json:"position"`
	// At is when the broker stored the fact at Position: by it a log that was recreated is told apart.
	At        time.Time            `json:"at"`
	Fleet     Fleet                `json:"fleet"`
	Execs     map[string]*Exec     `json:"execs"`
	Schedules map[string]*Schedule `json:"schedules"`
	// Zone is what "local" means; empty before the installation's first fact.
	Zone string `json:"zone,omitempty"`
	// Freeze of the fleet.
	Freeze Freeze `json:"freeze,omitzero"`
	// Jobs are the versions of the jobs that there are.
	Jobs map[string]string `json:"jobs,omitempty"`
	// Calendars are the documents of the named calendars.
	Calendars map[string]json.RawMessage `json:"calendars,omitempty"`
	// ZoneSeq is the last sequence of the installation's aggregate.
	ZoneSeq uint64 `json:"zone_seq,omitempty"`
	// Day is the newest of the clock's, a date in UTC; empty before the first.
	Day string `json:"day,omitempty"`
	// Late are the execs of which an endpoint has said something that the fold could not count, and since when: their totals
	// may not be those that the log's last fact says. They are noted until they are reduced.
	Late map[string]time.Time `json:"late,omitempty"`
	// Foreign are execs that have expired, were not reduced and bear an id that agents may have drawn.
	Foreign map[string]bool `json:"foreign,omitempty"`

	retain    events.Retain
	local     *time.Location            // of Zone
	zones     map[string]*time.Location // of schedules, by name
	calendars map[string]*catalog.DayCalendar
	// fired are the execs of each schedule, by both ids: there may be as many execs as schedules, and a tick asks for its own.
	fired map[string]map[string]*Exec

	// Touched names what may have a next step since the last look: execs to close, schedules to arm or to progress.
	Touched Touched `json:"-"`
}

// Touched is what has changed since somebody last looked.
type Touched struct {
	Execs, Schedules map[string]struct{}
	// Kills are killed execs of which an endpoint has said that it has the command or has started it: it has not heard.
	Kills map[string]struct{}
}

// New is the state before the first fact, of an installation that remembers for so long.
func New(r events.Retain) *State {
	s := &State{
		Fleet: Fleet{}, Execs: map[string]*Exec{}, Schedules: map[string]*Schedule{}, Late: map[string]time.Time{}, Foreign: map[string]bool{},
		retain: r, local: time.UTC, zones: map[string]*time.Location{}, fired: map[string]map[string]*Exec{},
	}
	s.TouchAll()
	return s
}

// TouchAll asks for a look at everything: what a sweep does.
func (s *State) TouchAll() {
	s.Touched = Touched{Execs: map[string]struct{}{}, Schedules: map[string]struct{}{}, Kills: map[string]struct{}{}}
	for id := range s.Execs {
		s.Touched.Execs[id] = struct{}{}
	}
	for id := range s.Schedules {
		s.Touched.Schedules[id] = struct{}{}
	}
}

// Retain is how long the installation remembers.
func (s *State) Retain() events.Retain { return s.retain }

// Local is the zone that "local" means; UTC until the installation says otherwise.
func (s *State) Local() *time.Location { return s.local }

func (s *State) setZone(name string) {
	s.Zone, s.local = name, time.UTC
	if loc, err := time.LoadLocation(name); err == nil {
		s.local = loc
	}
}

// Present is what ticks of a schedule are decided on at an instant.
func (s *State) Present(x *Schedule, now time.Time) Present {
	p := Present{Now: now, Gates: catalog.Gates{Local: s.local, Calendars: s.calendars}, Freeze: s.Freeze}
	for _, e := range s.fired[x.ID] {
		p.Busy = p.Busy || e.Busy()
		p.Open += e.open()
	}
	if v := x.Current(); v != nil && v.spec != nil && v.spec.Constraints != nil && v.spec.Constraints.MaxConcurrent != nil {
		for _, e := range s.Fleet {
			if Member(v.spec.Target, e) {
				p.Reach++
			}
		}
	}
	return p
}

// BusyExecs are the ids of the execs of a schedule that still run somewhere, sorted.
func (s *State) BusyExecs(scheduleID string) []string {
	var busy []string
	for id, x := range s.fired[scheduleID] {
		if x.Busy() {
			busy = append(busy, id)
		}
	}
	slices.Sort(busy)
	return busy
}

func (s *State) setCalendar(id string, doc json.RawMessage) {
	c, err := catalog.ParseDayCalendarDocument(doc)
	if err != nil {
		return
	}
	if s.calendars == nil {
		s.calendars = map[string]*catalog.DayCalendar{}
	}
	s.calendars[id] = c
}

// touchCalendar asks for a look at the schedules that name a calendar.
func (s *State) touchCalendar(calendar string) {
	for id, x := range s.Schedules {
		if v := x.Current(); v != nil && v.spec != nil && slices.Contains(v.spec.Calendars, calendar) {
			s.Touched.Schedules[id] = struct{}{}
		}
	}
}

// touchJob asks for a look at the intervals that run a job.
func (s *State) touchJob(job string) {
	for id, x := range s.Schedules {
		if i, ok := x.interval(); ok && i.spec.JobID == job {
			s.Touched.Schedules[id] = struct{}{}
		}
	}
}

// Load reads a state back from the JSON it was saved as, and asks for a look at everything.
func Load(saved []byte, r events.Retain) (*State, error) {
	s := New(r)
	if err := json.Unmarshal(saved, s); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	s.setZone(s.Zone)
	for id, doc := range s.Calendars {
		s.setCalendar(id, doc)
	}
	for _, x := range s.Execs {
		s.enlist(x)
	}
	for _, x := range s.Schedules {
		for i := range x.Versions {
			x.Versions[i].parse(s.zones)
		}
	}
	s.TouchAll()
	return s, nil
}

// Apply takes one fact in. Facts at or before Position are ignored. A fact that can't be decoded is skipped, and is an
// *events.DecodeError: it says nothing that anybody could act on.
func (s *State) Apply(e events.Event, seq uint64, at time.Time) error {
	if seq <= s.Position {
		return nil
	}
	s.Position, s.At = seq, at
	if f, ok, err := events.RunFactOf(e); err != nil {
		return err
	} else if ok {
		s.run(f, seq, at)
		return nil
	}
	switch e.Aggregate() {
	case events.AggregateExec, events.AggregateSchedule, events.AggregateAgent, events.AggregateConfig, events.AggregateFreeze,
		events.AggregateJob, events.AggregateClock:
	default:
		return nil
	}
	p, err := e.Payload()
	if err != nil {
		s.passed(e.Aggregate(), e.Subject, seq)
		return err
	}
	err = s.apply(p, e.Subject, seq, at)
	if x := s.Execs[e.Subject]; x != nil && e.Aggregate() == events.AggregateExec {
		x.TraceParent = e.TraceParent
	}
	return err
}

// Skip passes a message over that is no fact. If it lies on an aggregate's subject, an append must know of it.
func (s *State) Skip(subject string, seq uint64, at time.Time) {
	if seq <= s.Position {
		return
	}
	s.Position, s.At = seq, at
	if parts := strings.Split(subject, "."); len(parts) == 4 && parts[0] == "events" {
		if id, err := events.Unescape(parts[2]); err == nil {
			s.passed(events.Aggregate(parts[1]), id, seq)
		}
	}
}

// passed notes that an aggregate holds a fact that this version does not know.
func (s *State) passed(a events.Aggregate, id string, seq uint64) {
	switch a {
	case events.AggregateExec:
		if x := s.Execs[id]; x != nil {
			x.LastSeq = seq
			s.Touched.Execs[id] = struct{}{}
		}
	case events.AggregateSchedule:
		s.schedule(id, seq)
	case events.AggregateAgent:
		s.Fleet.get(id).LastSeq = seq
	case events.AggregateConfig:
		if id == events.InstallationID {
			s.ZoneSeq = seq
		}
	}
}

func (s *State) apply(p events.Payload, id string, seq uint64, at time.Time) error {
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
		s.setZone(p.Zone)
		s.ZoneSeq = seq
		s.TouchAll()
	case events.JobSaved:
		if s.Jobs == nil {
			s.Jobs = map[string]string{}
		}
		s.Jobs[p.ID] = p.Version
		s.touchJob(p.ID)
	case events.JobDeleted:
		delete(s.Jobs, p.ID)
	case events.CalendarSaved:
		if s.Calendars == nil {
			s.Calendars = map[string]json.RawMessage{}
		}
		s.Calendars[p.Calendar] = p.Document
		s.setCalendar(p.Calendar, s.Calendars[p.Calendar])
		s.touchCalendar(p.Calendar)
	case events.CalendarDeleted:
		delete(s.Calendars, p.Calendar)
		delete(s.calendars, p.Calendar)
		s.touchCalendar(p.Calendar)
	case events.FreezeSaved:
		s.Freeze.Save(p, at)
		s.touchIntervals()
	case events.FreezeCleared:
		s.Freeze.Clear()
		s.touchIntervals()
	case events.ClockTicked:
		s.ticked(p.Day, at)
	case events.ScheduleSaved:
		s.schedule(p.ID, seq).save(Version{Seq: seq, At: at, Document: p.DocumentRevision.Document}, s.Local(), s.zones)
	case events.ScheduleDeleted:
		s.schedule(p.ID, seq).remove(seq, at, s.Local())
	case events.ScheduleTicked:
		s.schedule(p.ID, seq).ticked(p, s.Local())
	case events.ScheduleProgressed:
		s.schedule(p.ID, seq).progressed(p.Changes, seq)
	default:
		return s.exec(p, id, seq, at)
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
		if _, ok := x.interval(); ok {
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
	if _, reduced := p.(events.ExecReduced); reduced {
		if x := s.Execs[id]; x != nil {
			s.strike(x)
		}
		delete(s.Execs, id)
		delete(s.Late, id)
		delete(s.Foreign, id)
		return nil
	}
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
		x.request(p, at)
		s.enlist(x)
	case events.ExecPlanned:
		x.plan(p, seq, at)
		for _, skipped := range p.Skipped {
			s.settle(x, skipped.PCID, false, at)
		}
	case events.WaveReleased:
		x.released(p)
	case events.WaveDispatched:
		x.dispatched(p, seq, at)
	case events.WaveAdvanced:
		if w := x.wave(p.Wave); w != nil {
			w.Advanced = true
		}
	case events.ExecPaused:
		x.Paused = true
	case events.ExecResumed:
		x.Paused = false
	case events.ExecHalted:
		s.stop(x, events.OutcomeHalted, events.SkipReasonHalted, seq, at)
	case events.ExecCancelled:
		s.stop(x, events.OutcomeCancelled, events.SkipReasonCancelled, seq, at)
	case events.ExecKilled:
		s.stop(x, events.OutcomeKilled, events.SkipReasonKilled, seq, at)
	case events.ExecCorrected:
		x.Said, x.SaidAt = p.Totals, at
	case events.ExecClosed:
		x.Closed, x.Said, x.SaidAt = true, p.Totals, at
		if x.Outcome == "" {
			x.Outcome = p.Outcome
		}
		s.settleWhole(x, p.Totals, at)
		x.shrink()
	case events.ExecExpired:
		for _, pc := range x.expire(seq, at) {
			s.settle(x, pc, false, at)
		}
		s.settleWhole(x, p.Totals, at)
		delete(s.Execs, id)
		s.strike(x)
		if foreign(id) {
			s.Foreign[id] = true
		}
	default:
		return fmt.Errorf("apply %s of exec %s: no such fact", p.EventType(), id)
	}
	return nil
}

// enlist counts an exec among those of its schedule, strike does not any more.
func (s *State) enlist(x *Exec) {
	if x.ScheduleID == "" {
		return
	}
	if s.fired[x.ScheduleID] == nil {
		s.fired[x.ScheduleID] = map[string]*Exec{}
	}
	s.fired[x.ScheduleID][x.ID] = x
}

func (s *State) strike(x *Exec) {
	if delete(s.fired[x.ScheduleID], x.ID); len(s.fired[x.ScheduleID]) == 0 {
		delete(s.fired, x.ScheduleID)
	}
}

func (s *State) stop(x *Exec, outcome events.Outcome, reason string, seq uint64, at time.Time) {
	for _, pc := range x.stop(outcome, reason, seq, at) {
		s.settle(x, pc, false, at)
	}
}

// run applies what an endpoint says of an exec.
func (s *State) run(f events.RunFact, seq uint64, at time.Time) {
	x := s.Execs[f.ExecID]
	s.note(x, f.ExecID, at)
	if x == nil {
		return
	}
	if x.Killed && (f.Kind == events.RunKindReceived || f.Kind == events.RunKindStarted) {
		s.Touched.Kills[x.ID] = struct{}{}
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

// settleWhole notes that the exec of a whole target has ended. It has succeeded when anybody has.
func (s *State) settleWhole(x *Exec, totals events.Totals, at time.Time) {
	s.settle(x, wholeTarget, totals.Expected[events.StateSucceeded]+totals.Others[events.StateSucceeded] > 0, at)
}

// note remembers an exec of which an endpoint says something that the fold does not count: it has expired, or it is settled
// and who belongs to it is forgotten, or it has no plan.
//
// Agents of kanade 0.43 have schedules of their own, whose runs bear ids that they draw (UUID version 4), a new one each
// time: such an id counts only if an exec of the log bore it. Those of ours are derived (version 5) or drawn as version 7.
func (s *State) note(x *Exec, id string, at time.Time) {
	switch {
	case id == "", x != nil && x.Planned && !x.Settled, x == nil && foreign(id) && !s.Foreign[id]:
		return
	}
	if _, noted := s.Late[id]; !noted {
		s.Late[id] = at
	}
}

// foreign reports whether an exec's id may have been drawn by an agent.
func foreign(id string) bool { return len(id) == 36 && id[14] == '4' }

// ticked is the beginning of a day, at an instant: what has had its time is forgotten. A deleted schedule is forgotten when
// its facts may leave the log, whether or not they have: nothing is decided about it any more. What an exec is noted for
// is forgotten a day later, for there was housekeeping in between, however long nobody was there before: who is noted still is
// no exec that can be reduced.
func (s *State) ticked(day string, at time.Time) {
	if before, err := time.Parse(time.DateOnly, s.Day); err == nil {
		aged := DueAt(s.retain, before).Aged
		maps.DeleteFunc(s.Late, func(_ string, since time.Time) bool { return since.Before(aged) })
	}
	s.Day = max(s.Day, day)
	due := DueAt(s.retain, at)
	maps.DeleteFunc(s.Schedules, func(_ string, x *Schedule) bool { return x.gone(due.Ledger) })
}

func (s *State) settle(x *Exec, pc string, succeeded bool, at time.Time) {
	if schedule := s.Schedules[x.ScheduleID]; schedule != nil {
		schedule.settle(pc, x.ID, x.Version, succeeded, at)
		s.Touched.Schedules[schedule.ID] = struct{}{}
	}
}
