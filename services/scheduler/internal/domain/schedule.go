package domain

import (
	"encoding/json"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// Version is one saved form of a schedule, or its deletion. It rules from At until the next one.
type Version struct {
	Seq      uint64          `json:"seq"`
	At       time.Time       `json:"at"`
	Deleted  bool            `json:"deleted,omitempty"`
	Document json.RawMessage `json:"document,omitempty"`

	spec *catalog.Schedule
}

// Spec is the parsed document; nil when it is a deletion or can't be read.
func (v *Version) Spec() *catalog.Schedule {
	if v.spec == nil && !v.Deleted {
		if s, err := catalog.ParseScheduleDocument(v.Document); err == nil {
			v.spec = s
		}
	}
	return v.spec
}

// Schedule is what the scheduler knows of one schedule.
type Schedule struct {
	ID string `json:"id"`
	// LastSeq is the last sequence of the schedule's aggregate: what an append expects.
	LastSeq uint64 `json:"last_seq"`
	// Versions that may still have ticks, oldest first; the last one is the current one.
	Versions []Version `json:"versions"`
	// Mark is the nominal time up to which every tick is in the ledger.
	Mark time.Time `json:"mark"`
	// Progress is what an interval remembers of each endpoint.
	Progress map[string]events.Progress `json:"progress,omitempty"`
	// Pending are changes of Progress that the log does not hold yet.
	Pending map[string]events.Progress `json:"pending,omitempty"`
}

// Current is the version that rules, nil when the schedule is deleted.
func (s *Schedule) Current() *Version {
	if n := len(s.Versions); n > 0 && !s.Versions[n-1].Deleted {
		return &s.Versions[n-1]
	}
	return nil
}

// interval reports the current spec and its interval when it fires endpoint by endpoint.
func (s *Schedule) interval() (*catalog.Schedule, time.Duration, bool) {
	v := s.Current()
	if v == nil || v.Spec() == nil || v.Spec().When.PerPC == nil || !v.Spec().Enabled {
		return nil, 0, false
	}
	every, ok := v.Spec().Every()
	return v.Spec(), every, ok
}

// change adds a version. Versions whose ticks are all in the ledger are forgotten.
func (s *Schedule) change(v Version) {
	if len(s.Versions) == 0 {
		s.Mark = v.At
	}
	s.Versions = append(s.Versions, v)
	s.forget()
}

// forget drops versions that were replaced before the mark.
func (s *Schedule) forget() {
	for len(s.Versions) > 1 && !s.Versions[1].At.After(s.Mark) {
		s.Versions = s.Versions[1:]
	}
}

// ticked moves the mark; a fired interval opens a run on every endpoint it names.
func (s *Schedule) ticked(t events.ScheduleTicked) {
	if t.To.After(s.Mark) {
		s.Mark = t.To
	}
	s.forget()
	if v := s.Current(); t.Exec == nil || v == nil || v.Spec() == nil || v.Spec().When.PerPC == nil {
		return
	}
	plan, err := catalog.ParsePlanDocument(t.Exec.Plan)
	if err != nil {
		return
	}
	if s.Progress == nil {
		s.Progress = map[string]events.Progress{}
	}
	nominal := t.To
	for _, pc := range plan.Target.PCs {
		p := s.Progress[pc]
		p.PCID, p.ExecID, p.Fired = pc, t.Exec.ExecID, &nominal
		s.Progress[pc] = p
	}
}

// progressed takes over what the log says of endpoints.
func (s *Schedule) progressed(changes []events.Progress) {
	if s.Progress == nil {
		s.Progress = map[string]events.Progress{}
	}
	for _, p := range changes {
		if pending, ok := s.Pending[p.PCID]; ok && !pending.Fired.After(*p.Fired) {
			delete(s.Pending, p.PCID)
		}
		if now, ok := s.Progress[p.PCID]; ok && now.Fired != nil && now.Fired.After(*p.Fired) {
			continue // a later fire has begun meanwhile
		}
		s.Progress[p.PCID] = p
	}
}

// settle notes that the run of an exec on an endpoint has ended.
func (s *Schedule) settle(pc, execID string, succeeded bool, at time.Time) {
	p, ok := s.Progress[pc]
	if !ok || p.ExecID != execID {
		return
	}
	p.ExecID = ""
	if succeeded {
		p.Succeeded, p.Failures, p.NotBefore = p.Fired, 0, nil
	} else {
		p.Failures++
		notBefore := at.Add(Backoff(p.Failures)).UTC()
		p.NotBefore = &notBefore
	}
	if s.Pending == nil {
		s.Pending = map[string]events.Progress{}
	}
	s.Pending[pc] = p
}

// Back-off of an endpoint on which an interval keeps failing: doubling from one minute up to six hours.
const (
	backoffFirst = time.Minute
	backoffMost  = 6 * time.Hour
)

// Backoff is how long after its n-th failure in a row an endpoint is fired again, n from 1.
func Backoff(failures int) time.Duration {
	d := backoffFirst
	for i := 1; i < failures && d < backoffMost; i++ {
		d *= 2
	}
	return min(d, backoffMost)
}
