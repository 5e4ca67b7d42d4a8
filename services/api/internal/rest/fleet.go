package rest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"

	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// fleetFor is how long one reading of all endpoints and groups serves: with 100 000 of them a reading takes longer than
// everything else that an exec costs here, and the number it is for is a view anyway.
const fleetFor = time.Second

// fleet keeps the last reading of all endpoints. Safe for concurrent use.
type fleet struct {
	mu   sync.Mutex
	read time.Time
	last fleetView
}

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
	if !a.All && len(a.Groups) == 0 {
		return max(1, len(a.PCs))
	}
	view, err := s.fleet.view(ctx, s.Reader)
	if err != nil {
		s.Logger.Debug("count targets", "error", err)
		return max(1, len(a.PCs))
	}
	who := make(map[string]struct{}, len(a.PCs))
	if a.All {
		now := s.now(ctx)
		for id, e := range view.endpoints {
			if e.Alive(now) {
				who[id] = struct{}{}
			}
		}
	}
	for _, g := range a.Groups {
		for _, id := range view.members[g] {
			who[id] = struct{}{}
		}
	}
	for _, id := range a.PCs {
		who[id] = struct{}{}
	}
	return max(1, len(who))
}

// view reads all endpoints, or gives the last reading.
func (f *fleet) view(ctx context.Context, r *readmodel.Reader) (fleetView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.read.IsZero() && time.Since(f.read) < fleetFor {
		return f.last, nil
	}
	view, err := readFleet(ctx, r)
	if err == nil {
		f.last, f.read = view, time.Now()
	}
	return view, err
}

// readFleet reads all endpoints and groups.
func readFleet(ctx context.Context, r *readmodel.Reader) (fleetView, error) {
	agents, err := r.Agents(ctx, readmodel.AgentFilter{Limit: readmodel.All})
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
