package domain

import (
	"maps"
	"math"
	"slices"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

const (
	// KeepCommands is how long commands wait for endpoints that are away, when nothing else says so.
	KeepCommands = 7 * 24 * time.Hour
	// ExpirySlack is added to the last instant at which a run can end, for its answer to arrive.
	ExpirySlack = time.Minute
)

// Plan decides who runs an exec and how it is addressed. Named endpoints are expected whether alive or not, members of
// the target when they are alive; members that are away are waited for but not counted on. An endpoint whose agent can't
// run the script is left out with the reason.
func Plan(req events.ExecRequested, plan *catalog.Plan, fleet Fleet, now time.Time) events.ExecPlanned {
	p := events.ExecPlanned{ExecID: req.ExecID, Waves: []events.PlannedWave{}}
	p.DeadlineAt, p.ExpiresAt = times(req, now)
	wave := events.PlannedWave{DueAt: now}
	named := set(plan.Target.PCs)
	for _, pc := range candidates(plan.Target, fleet) {
		e := fleet[pc]
		if e == nil {
			wave.Expected = append(wave.Expected, pc)
		} else if reason, ok := e.CanRun(req.Script); !ok {
			p.Skipped = append(p.Skipped, events.SkippedPC{PCID: pc, Reason: reason})
		} else if _, ok := named[pc]; ok || e.Alive(now) {
			wave.Expected = append(wave.Expected, pc)
		} else {
			wave.Waiting = append(wave.Waiting, pc)
		}
	}
	if len(wave.Expected)+len(wave.Waiting) == 0 {
		return p
	}
	p.Waves = append(p.Waves, wave)
	if p.Subjects = broadcast(plan.Target, wave, fleet); len(p.Subjects) > 0 {
		p.RequestID = events.DeriveID(req.ExecID, "request")
	}
	return p
}

// times are the last instant to start and the expiry. A command of a tick can't start after the next tick.
func times(req events.ExecRequested, now time.Time) (deadline, expires time.Time) {
	if req.DeadlineAt == nil {
		return now.Add(KeepCommands), now.Add(KeepCommands)
	}
	timeout := time.Duration(min(req.Script.TimeoutSecs, uint64(math.MaxInt64/time.Second))) * time.Second
	return *req.DeadlineAt, req.DeadlineAt.Add(timeout).Add(ExpirySlack)
}

// candidates are the endpoints that the target names, sorted, each once.
func candidates(t catalog.Target, fleet Fleet) []string {
	ids := set(t.PCs)
	if t.All || len(t.Groups) > 0 {
		for id, e := range fleet {
			if e.Known && e.in(t.All, t.Groups) {
				ids[id] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

func set(ids ...[]string) map[string]struct{} {
	m := make(map[string]struct{})
	for _, list := range ids {
		for _, id := range list {
			m[id] = struct{}{}
		}
	}
	return m
}

// broadcast gives the subject of an exec to everybody that may go out as one message: when every known endpoint is in the
// plan and nobody else is. Otherwise each endpoint gets its own command, and the answer is empty.
//
// An exec to groups always goes to each endpoint: which endpoints hear a group's subject is decided by when each of them
// has learned of its membership, and a command that was stored before that moment would be heard by nobody.
func broadcast(t catalog.Target, wave events.PlannedWave, fleet Fleet) []string {
	if !t.All {
		return nil
	}
	planned := set(wave.Expected, wave.Waiting)
	heard := 0
	for id, e := range fleet {
		if !e.Known {
			continue
		}
		if _, ok := planned[id]; !ok {
			return nil
		}
		heard++
	}
	if heard != len(planned) {
		return nil
	}
	return []string{wire.SubjectCommandAll}
}
