package rest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"time"

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

// count is how many endpoints a plan asks for, at least 1: alive ones of "all", members of groups, and whoever is named.
// The exact set is decided when the exec is planned. With only PCs named the read model is not needed, and where there
// is none, names alone count.
func (s *server) count(ctx context.Context, a domain.Audience) int {
	asked := readmodel.Audience{Groups: a.Groups, PCs: a.PCs}
	if a.All {
		asked.AliveSince = s.now(ctx).Add(-events.AliveFor)
	}
	n, err := s.Reader.CountAudience(ctx, asked)
	if err != nil {
		s.Logger.Debug("count targets", "error", err)
		n = len(a.PCs)
	}
	return max(1, n)
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
