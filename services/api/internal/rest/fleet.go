package rest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// fleetView is the read model's view of all endpoints: a fanout.Fleet. It is never changed once it is made.
type fleetView struct {
	endpoints map[string]fanout.Endpoint
	members   map[string][]string
}

// Endpoint is one by id.
func (v fleetView) Endpoint(id string) (fanout.Endpoint, bool) {
	e, ok := v.endpoints[id]
	return e, ok
}

// Endpoints are all, in any order.
func (v fleetView) Endpoints() iter.Seq[fanout.Endpoint] { return maps.Values(v.endpoints) }

// admit decides whether an exec that asks for targets has any, and counts the endpoints that a plan asks for. least is the
// sequence that the client wants the read model to have seen; 0 for none.
//
// A plan that names each endpoint does not need the read model: it is counted by its names, and refused for want of targets
// only where the read model says in a moment that none of them can run it. For any other plan that requires targets the
// read model is waited for until it has what the log has now; without it the request is refused (503). To be counted
// alone, nothing waits but for least: the count is the read model's view, nil where there is none.
func (s *server) admit(ctx context.Context, e events.ExecRequested, plan *catalog.Plan, at time.Time, least uint64) (*int, error) {
	n, named := domain.CountNames(plan)
	if plan.RequireTargets {
		if err := s.requireTargets(ctx, e, plan, at, named, least); err != nil {
			return nil, err
		}
	}
	if named {
		return &n, nil
	}
	if least > 0 {
		if err := s.appliedSoon(ctx, least); err != nil {
			return nil, err
		}
	}
	n, err := s.count(ctx, e, plan, at)
	if err != nil {
		s.Logger.Debug("count the targets of an exec", "exec", e.ExecID, "error", err)
		return nil, nil //nolint:nilnil // an exec whose targets nobody can count is accepted all the same
	}
	return &n, nil
}

// requireTargets refuses an exec that reaches nobody.
func (s *server) requireTargets(
	ctx context.Context, e events.ExecRequested, plan *catalog.Plan, at time.Time, named bool, least uint64,
) error {
	wait := minSequenceWait
	if named {
		wait = lookBefore
	}
	planned, err := s.plannedAsOf(ctx, e, plan, at, least, wait)
	if named && (errors.Is(err, readmodel.ErrNoModel) || errors.Is(err, readmodel.ErrBehind)) {
		return nil
	}
	if err != nil {
		return err
	}
	return domain.RequireTargets(plan, planned)
}

// plannedAsOf is the plan of an exec over the fleet as of what the log has now, and of least.
func (s *server) plannedAsOf(
	ctx context.Context, e events.ExecRequested, plan *catalog.Plan, at time.Time, least uint64, wait time.Duration,
) (events.ExecPlanned, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if _, _, err := s.Reader.Applied(waiting); err != nil {
		return events.ExecPlanned{}, err
	}
	last, err := s.Bus.LastSeq(waiting, events.StreamLog)
	if err != nil {
		return events.ExecPlanned{}, err
	}
	if err := s.Reader.WaitFor(waiting, max(last, least)); err != nil {
		return events.ExecPlanned{}, err
	}
	return s.planned(ctx, e, plan, at)
}

// count is how many endpoints a plan asks for as far as the read model knows them: everybody of all and of groups that is
// known, away or not, and whoever is named, each once; those that can't run it are among them. The exact set is decided
// when the exec is planned.
func (s *server) count(ctx context.Context, e events.ExecRequested, plan *catalog.Plan, at time.Time) (int, error) {
	if a, exact := domain.AudienceOf(plan); exact {
		return s.Reader.CountAudience(ctx, readmodel.Audience{All: a.All, Groups: a.Groups, PCs: a.PCs})
	}
	planned, err := s.planned(ctx, e, plan, at)
	return domain.Asked(planned), err
}

// readFleet reads all endpoints and groups.
func readFleet(ctx context.Context, r *readmodel.Reader) (fleetView, error) {
	agents, _, err := r.Agents(ctx, readmodel.AgentFilter{Page: readmodel.Page{Limit: readmodel.All}})
	if err != nil {
		return fleetView{}, fmt.Errorf("read endpoints: %w", err)
	}
	groups, err := r.Groups(ctx)
	if err != nil {
		return fleetView{}, fmt.Errorf("read groups: %w", err)
	}
	view := fleetView{endpoints: make(map[string]fanout.Endpoint, len(agents)), members: make(map[string][]string, len(groups))}
	for i := range agents {
		a := &agents[i]
		view.endpoints[a.PCID] = fanout.Endpoint{
			PCID: a.PCID, AgentVersion: a.AgentVersion, OSFamily: a.OSFamily, Known: a.Sequence > 0, HeardAt: a.HeardAt,
		}
	}
	for _, g := range groups {
		view.members[g.Name] = g.Members
		for _, id := range g.Members {
			e := view.endpoints[id]
			e.PCID, e.Groups = id, append(e.Groups, g.Name)
			view.endpoints[id] = e
		}
	}
	return view, nil
}

func isAlive(a *readmodel.Agent, now time.Time) bool {
	return events.Alive(a.HeardAt, now)
}
