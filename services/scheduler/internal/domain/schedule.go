package domain

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// Version is one saved form of a schedule. It rules the ticks after At, up to and with Until.
type Version struct {
	Seq uint64    `json:"seq"`
	At  time.Time `json:"at"`
	// Until is when another one, or the deletion, took its place; zero while it is the current one.
	Until    time.Time       `json:"until,omitzero"`
	Document json.RawMessage `json:"document"`

	spec *catalog.Schedule
}

// Spec is the parsed document; nil when it can't be read.
func (v *Version) Spec() *catalog.Schedule { return v.spec }

// parse reads the document, so that whoever only looks changes nothing. The zones of all schedules are shared.
func (v *Version) parse(zones map[string]*time.Location) {
	if spec, err := catalog.ParseScheduleDocument(v.Document); err == nil {
		spec.Remember(zones)
		v.spec = spec
	}
}

// next is the version's first tick after the mark.
func (v *Version) next(mark time.Time, local *time.Location) (time.Time, bool) {
	if v.spec == nil || v.spec.RunsOn == catalog.Agent {
		return time.Time{}, false
	}
	at, ok := v.spec.Next(later(mark, v.At), local)
	return at, ok && (v.Until.IsZero() || !at.After(v.Until))
}

// Schedule is what the scheduler knows of one schedule.
type Schedule struct {
	ID string `json:"id"`
	// LastSeq is the last sequence of the schedule's aggregate: what an append expects.
	LastSeq uint64 `json:"last_seq"`
	// Versions that have ticks which are not in the ledger yet, oldest first, and the current one at the end.
	Versions []Version `json:"versions,omitempty"`
	// Mark is the nominal time up to which every tick is in the ledger.
	Mark time.Time `json:"mark"`
	// Held counts the ticks in a row that an interval could not fire (its job is gone or unfit).
	Held int `json:"held,omitempty"`
	// Progress is what an interval remembers of each endpoint, or under the empty id of its whole target.
	Progress map[string]events.Progress `json:"progress,omitempty"`
	// Changed is the sequence of the fact that made what is remembered of each endpoint.
	Changed map[string]uint64 `json:"changed,omitempty"`
	// DeletedSeq and DeletedAt are of the last deletion; zero: never. What was remembered before it counts for nothing.
	DeletedSeq uint64    `json:"deleted_seq,omitempty"`
	DeletedAt  time.Time `json:"deleted_at,omitzero"`
	// Pending are changes of Progress that the log does not hold yet.
	Pending map[string]events.Progress `json:"pending,omitempty"`
}

// Current is the version that rules, nil when the schedule is deleted.
func (s *Schedule) Current() *Version {
	if n := len(s.Versions); n > 0 && s.Versions[n-1].Until.IsZero() {
		return &s.Versions[n-1]
	}
	return nil
}

// interval is how a version fires that goes by what its endpoints have done.
type interval struct {
	*Version
	// whole: the target fires as one (per_target).
	whole bool
	// every is the time from a success to the next fire; 0: there is none, or with perVersion none of the same version.
	every      time.Duration
	perVersion bool
}

// interval is how the current version fires; false when it has due times, is disabled, or is the agents' own.
func (s *Schedule) interval() (interval, bool) {
	v := s.Current()
	if v == nil || v.spec == nil || !v.spec.Enabled || v.spec.RunsOn == catalog.Agent {
		return interval{}, false
	}
	x := interval{Version: v, whole: v.spec.When.PerTarget != nil}
	c := v.spec.When.PerPC
	if x.whole {
		c = v.spec.When.PerTarget
	}
	if c == nil {
		return interval{}, false
	}
	switch c.Word {
	case catalog.Once:
	case catalog.OncePerVersion:
		x.perVersion = true
	case "":
		every, ok := v.spec.Every()
		if !ok || every <= 0 {
			return interval{}, false
		}
		x.every = every
	default:
		return interval{}, false
	}
	return x, true
}

// open counts the endpoints that have an open run by the schedule.
func (s *Schedule) open() int {
	n := 0
	for _, p := range s.Progress {
		if p.ExecID != "" {
			n++
		}
	}
	return n
}

// Look is when the scheduler has to look at the schedule next: at a tick, or at a minute at which an endpoint is due. The
// generation tells this look from others. False when nothing is due until something changes: also while a tick waits for
// an earlier one to end (overlap: queue).
func (s *Schedule) Look(fleet Fleet, jobs map[string]string, p Present) (at time.Time, generation string, ok bool) {
	at, version, ok := NextTick(s, p.Local)
	if ok && !at.After(p.Now) && p.Busy && s.queues() {
		ok = false
	}
	if minute, due := NextMinute(s, fleet, jobs, p); due && (!ok || minute.Before(at)) {
		at, version, ok = minute, s.Current().Seq, true
	}
	generation = fmt.Sprintf("%d-%d", version, at.UnixNano())
	if ok && !at.After(p.Now) && s.queued() {
		generation += fmt.Sprintf("-%d", p.Now.Unix()) // its own timer has come and gone before its turn
	}
	return at, generation, ok
}

// queued reports whether a tick that is not in the ledger yet may have waited for its turn, also one of a version that has
// been replaced or deleted since.
func (s *Schedule) queued() bool {
	return slices.ContainsFunc(s.Versions, func(v Version) bool { return v.spec != nil && v.spec.OverlapPolicy() == catalog.OverlapQueue })
}

func (s *Schedule) queues() bool {
	v := s.Current()
	return v != nil && v.spec != nil && v.spec.OverlapPolicy() == catalog.OverlapQueue
}

// save begins a version.
func (s *Schedule) save(v Version, local *time.Location, zones map[string]*time.Location) {
	if s.Mark.IsZero() {
		s.Mark = v.At
	}
	s.end(v.At, local)
	v.parse(zones)
	s.Versions = append(s.Versions, v)
}

// end takes the current version's place. Its ticks up to then still have to get into the ledger.
func (s *Schedule) end(at time.Time, local *time.Location) {
	if v := s.Current(); v != nil {
		v.Until = at
		s.forget(local)
	}
}

// remove is the deletion: what the schedule remembers of endpoints goes with it.
func (s *Schedule) remove(seq uint64, at time.Time, local *time.Location) {
	s.end(at, local)
	s.Progress, s.Pending, s.Changed = nil, nil, nil
	s.DeletedSeq, s.DeletedAt = seq, at
}

// gone reports whether it was deleted before an instant and is not there again.
func (s *Schedule) gone(before time.Time) bool {
	return s.Current() == nil && s.DeletedSeq > 0 && s.DeletedAt.Before(before)
}

// Outlived reports whether a fact of progress may leave the log: each of its endpoints has a later one, or the schedule was
// deleted after it and before an instant.
func (s *Schedule) Outlived(seq uint64, changes []events.Progress, deleted time.Time) bool {
	if seq < s.DeletedSeq && s.DeletedAt.Before(deleted) {
		return true
	}
	return !slices.ContainsFunc(changes, func(p events.Progress) bool { return s.Changed[p.PCID] <= seq })
}

// forget drops replaced versions whose ticks are all in the ledger.
func (s *Schedule) forget(local *time.Location) {
	s.Versions = slices.DeleteFunc(s.Versions, func(v Version) bool {
		if v.Until.IsZero() {
			return false
		}
		_, due := v.next(s.Mark, local)
		return !due
	})
}

// ticked moves the mark; a fired interval opens a run on every endpoint it names, or on its target.
func (s *Schedule) ticked(t events.ScheduleTicked, local *time.Location) {
	s.Mark = later(s.Mark, t.To)
	s.forget(local)
	x, ok := s.interval()
	if !ok {
		return
	}
	if t.Exec == nil {
		s.Held++
		return
	}
	s.Held = 0
	plan, err := catalog.ParsePlanDocument(t.Exec.Plan)
	if err != nil {
		return
	}
	if s.Progress == nil {
		s.Progress = map[string]events.Progress{}
	}
	fired := plan.Target.PCs
	if x.whole {
		fired = []string{wholeTarget}
	}
	for _, pc := range fired {
		p := s.Progress[pc]
		p.PCID, p.ExecID, p.Fired = pc, t.Exec.ExecID, &t.To
		s.Progress[pc] = p
	}
}

// wholeTarget is the id of the target of a per_target schedule among those of endpoints.
const wholeTarget = ""

// progressed takes over what the log says of endpoints.
func (s *Schedule) progressed(changes []events.Progress, seq uint64) {
	if s.Progress == nil {
		s.Progress = map[string]events.Progress{}
	}
	if s.Changed == nil {
		s.Changed = map[string]uint64{}
	}
	for _, p := range changes {
		if pending, ok := s.Pending[p.PCID]; ok && (instant(p.Fired).After(instant(pending.Fired)) || same(p, pending)) {
			delete(s.Pending, p.PCID)
		}
		if instant(s.Progress[p.PCID].Fired).After(instant(p.Fired)) {
			continue // a later fire has begun meanwhile
		}
		s.Progress[p.PCID], s.Changed[p.PCID] = p, seq
	}
}

func same(a, b events.Progress) bool {
	return a.ExecID == b.ExecID && a.Failures == b.Failures && a.Version == b.Version && instant(a.Fired).Equal(instant(b.Fired)) &&
		instant(a.Succeeded).Equal(instant(b.Succeeded)) && instant(a.NotBefore).Equal(instant(b.NotBefore))
}

// instant is the zero time for none.
func instant(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// settle notes that the run of an exec of a version on an endpoint, or on the whole target, has ended.
func (s *Schedule) settle(pc, execID, version string, succeeded bool, at time.Time) {
	p, ok := s.Progress[pc]
	if !ok || p.ExecID != execID {
		return
	}
	p.ExecID = ""
	if succeeded {
		p.Succeeded, p.Version, p.Failures, p.NotBefore = p.Fired, version, 0, nil
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
