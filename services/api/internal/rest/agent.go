package rest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// agent is an endpoint as answered. What is unknown is "" for texts and null for times and numbers.
type agent struct {
	PCID             string   `json:"pc_id"`
	Hostname         string   `json:"hostname"`
	OSFamily         string   `json:"os_family"`
	AgentVersion     string   `json:"agent_version"`
	LastHeartbeat    instant  `json:"last_heartbeat"`
	UpdatedAt        instant  `json:"updated_at"`
	CPUPct           *float64 `json:"agent_cpu_pct"`
	RSSBytes         *int64   `json:"agent_rss_bytes"`
	DiskReadBytes    *int64   `json:"agent_disk_read_bytes"`
	DiskWrittenBytes *int64   `json:"agent_disk_written_bytes"`
	Groups           []string `json:"groups"`
	// Alive: a heartbeat has arrived within the last two minutes, by the broker's clock.
	Alive bool `json:"alive"`
}

func agentOf(a *readmodel.Agent, groups []string, now time.Time) agent {
	if groups == nil {
		groups = []string{}
	}
	return agent{
		PCID: a.PCID, Hostname: a.Hostname, OSFamily: a.OSFamily, AgentVersion: a.AgentVersion,
		LastHeartbeat: instant(a.HeartbeatAt), UpdatedAt: instant(a.HeardAt.Truncate(time.Second)),
		CPUPct: a.CPUPct, RSSBytes: a.RSSBytes, DiskReadBytes: a.DiskReadBytes, DiskWrittenBytes: a.DiskWrittenBytes,
		Groups: groups, Alive: isAlive(a, now),
	}
}

// presence is what is known of an endpoint, also of one that was never heard.
func (s *server) presence(ctx context.Context, pcID string, now time.Time) (*domain.Presence, error) {
	row, err := s.Reader.Agent(ctx, pcID)
	if err != nil && !errors.Is(err, readmodel.ErrNotFound) {
		return nil, err
	}
	groups, err := s.Reader.Memberships(ctx, pcID)
	if err != nil {
		return nil, err
	}
	return &domain.Presence{HeardAt: row.HeardAt, Alive: isAlive(&row, now), Groups: groups}, nil
}

func (s *server) listAgents(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	l := q.list(r, readmodel.All)
	orders := []string{"heard", "pc_id"}
	if l.form != formJSON { // what is read in steps would miss whoever is heard meanwhile
		orders = []string{"pc_id"}
	}
	filter := readmodel.AgentFilter{Query: q.text("q"), ByID: q.word("order", orders...) == "pc_id"}
	if q.err != nil {
		return q.err
	}
	groups, err := s.Reader.Groups(r.Context())
	if err != nil {
		return err
	}
	memberships := map[string][]string{}
	for _, g := range groups {
		for _, pc := range g.Members {
			memberships[pc] = append(memberships[pc], g.Name)
		}
	}
	return writeList(w, r, l, sheetOf[agent]("agents"), func(ctx context.Context, p readmodel.Page) ([]agent, string, error) {
		filter.Page = p
		now := s.now(ctx)
		rows, next, err := s.Reader.Agents(ctx, filter)
		return rowsOf(rows, next, err, func(a *readmodel.Agent) agent { return agentOf(a, memberships[a.PCID], now) })
	})
}

func (s *server) getAgent(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r, "pc_id")
	if err != nil {
		return err
	}
	row, err := s.Reader.Agent(r.Context(), id)
	if errors.Is(err, readmodel.ErrNotFound) {
		return domain.Refuse(domain.NotFound, "agent '%s' not found: no endpoint of that id has been heard", id)
	}
	if err != nil {
		return err
	}
	groups, err := s.Reader.Memberships(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, agentOf(&row, groups, s.now(r.Context())))
}
