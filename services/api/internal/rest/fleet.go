package rest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// fleetFor is how long one reading of all endpoints and groups serves: with 100 000 of them a reading takes longer than
// everything else that an exec costs here, and the number it is for is a view anyway.
const fleetFor = time.Second

// fleet is the read model's view of whom a plan would reach. Safe for concurrent use.
type fleet struct {
	mu      sync.Mutex
	read    time.Time
	alive   []string
	members map[string][]string
}

// count is how many endpoints a plan asks for, at least 1: alive ones of "all", members of groups, and whoever is named.
// The exact set is decided when the exec is planned. With only PCs named the read model is not needed, and where there
// is none, names alone count.
func (s *server) count(ctx context.Context, a domain.Audience) int {
	if !a.All && len(a.Groups) == 0 {
		return max(1, len(a.PCs))
	}
	alive, members, err := s.fleet.view(ctx, s.Reader, func() time.Time { return s.now(ctx) })
	if err != nil {
		s.Logger.Debug("count targets", "error", err)
		return max(1, len(a.PCs))
	}
	who := make(map[string]struct{}, len(a.PCs))
	add := func(names []string) {
		for _, n := range names {
			who[n] = struct{}{}
		}
	}
	if a.All {
		if len(a.Groups) == 0 && len(a.PCs) == 0 {
			return max(1, len(alive))
		}
		add(alive)
	}
	for _, g := range a.Groups {
		add(members[g])
	}
	add(a.PCs)
	return max(1, len(who))
}

// view reads all endpoints and groups, or gives the last reading. Both are never changed afterwards.
func (f *fleet) view(ctx context.Context, r *readmodel.Reader, now func() time.Time) ([]string, map[string][]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.read.IsZero() && time.Since(f.read) < fleetFor {
		return f.alive, f.members, nil
	}
	agents, err := r.Agents(ctx, readmodel.AgentFilter{Limit: readmodel.All})
	if err != nil {
		return nil, nil, fmt.Errorf("read endpoints: %w", err)
	}
	groups, err := r.Groups(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read groups: %w", err)
	}
	f.alive, f.members = nil, make(map[string][]string, len(groups))
	at := now()
	for i := range agents {
		if isAlive(&agents[i], at) {
			f.alive = append(f.alive, agents[i].PCID)
		}
	}
	for _, g := range groups {
		f.members[g.Name] = g.Members
	}
	f.read = time.Now()
	return f.alive, f.members, nil
}

func isAlive(a *readmodel.Agent, now time.Time) bool {
	return events.Alive(a.HeardAt, now)
}
