// Package fanout decides whom an exec reaches, in which waves, and with which commands. The scheduler decides by it, and
// the api answers a dry run by it, so that both say the same.
//
// Everything in it is a pure function of the request, the fleet and the broker's time.
//
// Who is in which wave. Each endpoint is in the first wave that names it. A wave of a group takes the group's members,
// one of pcs the named ones; one of percent or count takes that many of the target's endpoints that can run the script
// and that no earlier wave has taken, those that are alive first, each part in the order of ids; a share is of all of the
// target's endpoints that can run it, rounded up. Without a rollout everybody is in one wave, due at once.
//
// Named endpoints are expected whether alive or not; members of the target when they are alive. Members that are away are
// waited for but not counted on. An endpoint whose agent can't run the script is left out with the reason. Under a budget of
// parallel endpoints the named ones that are away come behind those that are alive.
package fanout

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

const (
	// KeepCommands is how long after the last wave commands wait for endpoints that are away, when nothing else says so.
	KeepCommands = 7 * 24 * time.Hour
	// ExpirySlack is added to the last instant at which a run can end, for its answer to arrive.
	ExpirySlack = time.Minute
)

// Fleet is what is known of endpoints.
type Fleet interface {
	// Endpoint is one by id; false where nothing is known of it.
	Endpoint(id string) (Endpoint, bool)
	// Endpoints are all, in any order.
	Endpoints() iter.Seq[Endpoint]
}

// Plan decides who runs an exec, and how it is addressed. now is the broker's time of the request's planning.
func Plan(req events.ExecRequested, plan *catalog.Plan, fleet Fleet, now time.Time) events.ExecPlanned {
	p := events.ExecPlanned{ExecID: req.ExecID, Waves: []events.PlannedWave{}}
	s := sorter{req: req, fleet: fleet, now: now}
	target := s.target(plan.Target)
	s.taken = make(map[string]bool, len(target))
	if plan.Rollout == nil {
		p.Waves = append(p.Waves, s.wave(events.PlannedWave{DueAt: now}, target))
	} else {
		for _, w := range plan.Rollout.Waves {
			p.Waves = append(p.Waves, s.rolloutWave(w, target, plan.Target))
		}
	}
	p.Skipped = s.skipped
	if !slices.ContainsFunc(p.Waves, func(w events.PlannedWave) bool { return w.Size() > 0 }) {
		p.Waves = []events.PlannedWave{}
	}
	p.DeadlineAt, p.ExpiresAt = times(req, plan, p.Waves, now)
	expected := 0
	for _, w := range p.Waves {
		expected += len(w.Expected)
	}
	p.MaxFailures = resolve(plan.MaxFailures, expected, 0)
	if p.MaxParallel = resolve(plan.MaxParallel, expected, 1); p.MaxParallel != nil {
		for _, w := range p.Waves {
			s.aliveFirst(w.Expected)
		}
	}
	if len(p.Waves) > 0 && plan.Rollout == nil && p.MaxParallel == nil {
		if p.Subjects = broadcast(plan.Target, target); len(p.Subjects) > 0 {
			p.RequestID = events.DeriveID(req.ExecID, "request")
		}
	}
	return p
}

// times are the last instant to start and the expiry. A deadline, a tick's or the plan's, bounds the start; otherwise it is
// as long as commands wait after the last wave. The exec expires when the last run that began then must have ended.
func times(req events.ExecRequested, plan *catalog.Plan, waves []events.PlannedWave, now time.Time) (deadline, expires time.Time) {
	bound := Bound(req, plan)
	if at := deadlineOf(req, plan); at != nil {
		return *at, at.Add(bound)
	}
	keep := Keep(req, plan)
	timings := make([]Timing, len(waves))
	for i, w := range waves {
		timings[i] = Timing{DueAt: w.DueAt, After: w.After && i > 0, Delay: w.Delay(), Pause: w.Pause}
	}
	deadline = LastOut(timings, now, bound, keep).Add(keep)
	return deadline, deadline.Add(bound)
}

// Within bounds a plan's times. An exec expires at the latest when its history is over, counted from its request: what
// endpoints say of it leaves the log soon afterwards, and all of it has to be there when the exec is summed up. Nothing may
// start later either. A history of 0 is for ever.
func Within(p events.ExecPlanned, requested time.Time, history time.Duration) events.ExecPlanned {
	if history > 0 {
		until := requested.Add(history)
		p.ExpiresAt, p.DeadlineAt = earlier(p.ExpiresAt, until), earlier(p.DeadlineAt, until)
	}
	return p
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Timing is when a wave goes out, as events.PlannedWave has it.
type Timing struct {
	DueAt time.Time
	After bool
	Delay time.Duration
	Pause bool
}

// distant bounds how far ahead LastOut sees: what is written down must have a year of four digits.
const distant = 100 * 365 * 24 * time.Hour

// LastOut is the latest instant at which the last of some waves goes out, where the one before them did so at an instant.
// A wave with After waits for the end of the one before, bound after it at the latest, and one with Pause for somebody who
// lets it go within keep.
func LastOut(waves []Timing, before time.Time, bound, keep time.Duration) time.Time {
	limit := before.Add(distant)
	last := before
	for _, w := range waves {
		out := w.DueAt
		if w.After {
			out = before.Add(min(bound, distant)).Add(min(w.Delay, distant))
		}
		if w.Pause {
			out = out.Add(min(keep, distant))
		}
		if out.After(limit) {
			out = limit
		}
		if before = out; out.After(last) {
			last = out
		}
	}
	return last
}

func deadlineOf(req events.ExecRequested, plan *catalog.Plan) *time.Time {
	if req.DeadlineAt != nil {
		return req.DeadlineAt
	}
	return plan.DeadlineAt
}

// Keep is how long after its wave the last endpoint may start: as long as a command waits for one that is away (the plan's
// expires_after, KeepCommands when it says nothing), and then its jitter. 0 for an exec with a deadline.
func Keep(req events.ExecRequested, plan *catalog.Plan) time.Duration {
	if deadlineOf(req, plan) != nil {
		return 0
	}
	keep := KeepCommands
	if plan.ExpiresAfter != nil {
		if d, err := plan.ExpiresAfter.Parse(); err == nil && d > 0 {
			keep = d
		}
	}
	return min(keep, distant) + time.Duration(min(JitterSecs(plan), uint64(distant/time.Second)))*time.Second
}

// Bound is how long it takes at most from the moment at which an endpoint has a command to its answer: jitter, every
// attempt, the pauses between them, and the slack.
func Bound(req events.ExecRequested, plan *catalog.Plan) time.Duration {
	secs := float64(max(req.Script.TimeoutSecs, 1))
	if r := req.Retry; r != nil {
		secs = secs*float64(r.Max+1) + float64(r.Max)*float64(r.BackoffSecs)
	}
	secs += float64(JitterSecs(plan))
	const most = math.MaxInt64/int64(time.Second) - 3600
	return time.Duration(min(secs, float64(most)))*time.Second + ExpirySlack
}

// JitterSecs is the plan's jitter in whole seconds, as commands carry it; 0 for none.
func JitterSecs(plan *catalog.Plan) uint64 {
	if plan.Jitter == nil {
		return 0
	}
	d, err := plan.Jitter.Parse()
	if err != nil || d <= 0 {
		return 0
	}
	return uint64(math.Ceil(d.Seconds()))
}

// resolve makes endpoints of an amount; a share is rounded down, to at least least.
func resolve(a *catalog.Amount, of, least int) *int {
	if a == nil {
		return nil
	}
	n := a.Count
	if a.Percent != 0 {
		n = max(of*a.Percent/100, least)
	}
	return &n
}

// sorter puts endpoints into waves, each once.
type sorter struct {
	req     events.ExecRequested
	fleet   Fleet
	now     time.Time
	taken   map[string]bool
	skipped []events.SkippedPC
}

// member is an endpoint of a target or wave: named, or a member of a group or of all.
type member struct {
	id           string
	named, known bool
	standing     standing
	reason       string // why it is unable
}

// target lists the endpoints that a target names, by id.
func (s *sorter) target(t catalog.Target) []member {
	members := make([]member, 0, len(t.PCs))
	for _, pc := range t.PCs {
		m := member{id: pc, named: true}
		if e, found := s.fleet.Endpoint(pc); found {
			m.known = e.Known
			m.standing, m.reason = s.standing(e, true)
		}
		members = append(members, m)
	}
	if t.All || len(t.Groups) > 0 {
		for e := range s.fleet.Endpoints() {
			if e.Known && (t.All || e.inAny(t.Groups)) {
				m := member{id: e.PCID, known: true}
				m.standing, m.reason = s.standing(e, false)
				members = append(members, m)
			}
		}
	}
	slices.SortFunc(members, func(a, b member) int {
		if a.id == b.id && a.named != b.named {
			if a.named {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.id, b.id)
	})
	return slices.CompactFunc(members, func(a, b member) bool { return a.id == b.id })
}

// wave takes members that are in no wave yet, and sorts them into those that are expected and those that are away.
func (s *sorter) wave(w events.PlannedWave, members []member) events.PlannedWave {
	for _, m := range members {
		if s.taken[m.id] {
			continue
		}
		s.taken[m.id] = true
		switch m.standing {
		case unable:
			s.skipped = append(s.skipped, events.SkippedPC{PCID: m.id, Reason: m.reason})
		case away:
			w.Waiting = append(w.Waiting, m.id)
		default:
			w.Expected = append(w.Expected, m.id)
		}
	}
	return w
}

// aliveFirst brings endpoints that are away behind the others: under a budget of places each holds one until it answers.
func (s *sorter) aliveFirst(ids []string) {
	slices.SortStableFunc(ids, func(a, b string) int {
		x, _ := s.fleet.Endpoint(a)
		y, _ := s.fleet.Endpoint(b)
		switch alive := x.Alive(s.now); {
		case alive == y.Alive(s.now):
			return 0
		case alive:
			return -1
		default:
			return 1
		}
	})
}

type standing int

const (
	expected standing = iota
	away
	unable
)

func (s *sorter) standing(e Endpoint, named bool) (standing, string) {
	if reason, ok := e.CanRun(s.req.Script); !ok {
		return unable, reason
	}
	if named || e.Alive(s.now) {
		return expected, ""
	}
	return away, ""
}

func (s *sorter) rolloutWave(w catalog.Wave, target []member, t catalog.Target) events.PlannedWave {
	planned := events.PlannedWave{DueAt: s.now, Pause: w.Pause}
	delay, err := w.Delay.Parse()
	if err != nil {
		delay = 0 // there is none, or it was refused before it came here
	}
	if planned.After = w.After != ""; planned.After {
		planned.DelaySecs = uint64(math.Ceil(delay.Seconds()))
	} else {
		planned.DueAt = s.now.Add(delay)
	}
	switch {
	case w.Group != "":
		planned.Label = "group " + w.Group
		return s.wave(planned, s.target(catalog.Target{Groups: []string{w.Group}, PCs: s.namedIn(w.Group, t)}))
	case len(w.PCs) > 0:
		planned.Label = fmt.Sprintf("%d named", len(w.PCs))
		return s.wave(planned, s.target(catalog.Target{PCs: w.PCs}))
	case w.Percent > 0:
		planned.Label = fmt.Sprintf("%d%%", w.Percent)
		return s.wave(planned, s.some(target, func(n int) int { return (n*w.Percent + 99) / 100 }))
	default:
		planned.Label = fmt.Sprintf("%d endpoints", w.Count)
		return s.wave(planned, s.some(target, func(int) int { return w.Count }))
	}
}

// namedIn are the endpoints of the target's list that belong to a group: named, they are expected whether alive or not.
func (s *sorter) namedIn(group string, t catalog.Target) []string {
	var ids []string
	for _, id := range t.PCs {
		if e, ok := s.fleet.Endpoint(id); ok && e.Known && slices.Contains(e.Groups, group) {
			ids = append(ids, id)
		}
	}
	return ids
}

// some picks a number of the target's endpoints that are free and can run the script, those that are alive first. The
// endpoints that can't run it come along when they are met, to be left out.
func (s *sorter) some(target []member, howMany func(n int) int) []member {
	var alive, gone, picked []member
	able := 0
	for _, m := range target {
		if m.standing == unable {
			picked = append(picked, m)
			continue
		}
		able++
		if s.taken[m.id] {
			continue
		}
		if m.standing == away {
			gone = append(gone, m)
		} else {
			alive = append(alive, m)
		}
	}
	free := append(alive, gone...)
	return append(picked, free[:min(howMany(able), len(free))]...)
}

// broadcast gives the subject of an exec to everybody that may go out as one message: when every known endpoint is in the
// plan and nobody else is. Otherwise each endpoint gets its own command, and the answer is empty.
//
// An exec to groups always goes to each endpoint: which endpoints hear a group's subject is decided by when each of them
// has learned of its membership, and a command that was stored before that moment would be heard by nobody.
func broadcast(t catalog.Target, members []member) []string {
	out := func(m member) bool { return !m.known || m.standing == unable }
	if !t.All || slices.ContainsFunc(members, out) {
		return nil
	}
	return []string{wire.SubjectCommandAll}
}
