package readmodel

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"kanade/libs/events"
)

// Agent is an endpoint: what it is, as the log says, and when and how it was last heard, as PRESENCE says. An endpoint
// that one of the two knows exists; where the log does not know it yet, its heartbeat says what it is.
type Agent struct {
	PCID, AgentVersion string
	// Hostname and OSFamily are empty when unknown.
	Hostname, OSFamily string
	// Sequence is the LOG sequence of the fact that says what it is; 0 before there is one.
	Sequence uint64
	// HeardAt is when its last heartbeat arrived, by the broker's clock: what presence is judged by. Zero: never.
	HeardAt time.Time
	// HeartbeatAt is that heartbeat's time by the endpoint's own clock.
	HeartbeatAt time.Time
	// What the agent itself uses; nil when unknown. CPUPct is percent of one core, disk bytes count since its start.
	CPUPct                                    *float64
	RSSBytes, DiskReadBytes, DiskWrittenBytes *int64
}

type agentRow struct {
	pcID, version, hostname, osFamily string
	sequence                          uint64
}

var agents = relation{name: "agents", key: 1, columns: []string{
	"pc_id TEXT", "agent_version TEXT", "hostname TEXT", "os_family TEXT", "sequence INTEGER",
}}

var memberships = relation{name: "memberships", key: 2, columns: []string{"pc_id TEXT", "group_name TEXT"}}

func (a *agentRow) fields() []any {
	return []any{&a.pcID, &a.version, &a.hostname, &a.osFamily, sequence{&a.sequence}}
}

type agentProjection struct {
	*rows[agentRow, *agentRow]
	groups map[string][]string
}

func beginAgents(db *database) projection {
	return agentProjection{newRows[agentRow](db, &agents), map[string][]string{}}
}

func (p agentProjection) Apply(f *fact) error {
	switch e := f.payload.(type) {
	case events.AgentSeen:
		row, err := p.get(e.PCID)
		if err != nil {
			return err
		}
		row.row = agentRow{pcID: e.PCID, version: e.AgentVersion, hostname: e.Hostname, osFamily: e.OSFamily, sequence: f.seq}
		p.put(row)
	case events.AgentGrouped:
		p.groups[e.PCID] = e.Groups
	}
	return nil
}

func (p agentProjection) Flush() error {
	for pc, groups := range p.groups {
		if err := p.db.exec(&memberships, opDeletePrefix, pc); err != nil {
			return err
		}
		sorted := slices.Clone(groups)
		slices.Sort(sorted)
		for _, g := range slices.Compact(sorted) {
			if err := p.db.exec(&memberships, opInsert, pc, g); err != nil {
				return err
			}
		}
	}
	return p.flush()
}

// AgentFilter narrows a list of agents.
type AgentFilter struct {
	// Query is a part of the id or host name, ASCII letters in any case; blank: all.
	Query string
	// ByID lists by id, an order in which endpoints stand still. Otherwise the last heard comes first: there an endpoint
	// that is heard while the list is read moves to the front, and a page that was still to come does not have it.
	ByID bool
	Page
}

const (
	agentColumns = `COALESCE(NULLIF(a.agent_version, ''), p.agent_version, ''),
	COALESCE(NULLIF(a.hostname, ''), p.hostname, '') AS host, COALESCE(NULLIF(a.os_family, ''), p.os_family, ''),
	COALESCE(a.sequence, 0), COALESCE(p.heard_at, 0) AS heard, COALESCE(p.heartbeat_at, 0),
	p.cpu_pct, p.rss_bytes, p.disk_read_bytes, p.disk_written_bytes`
	selectAgents = `SELECT COALESCE(a.pc_id, p.pc_id), ` + agentColumns + ` FROM agents a FULL JOIN presence p ON p.pc_id = a.pc_id`
	// selectAgentsByID goes through both tables in the order of their keys, from behind ?3 on.
	selectAgentsByID = `SELECT x.pc_id, ` + agentColumns + `
	FROM (SELECT pc_id FROM agents WHERE pc_id > ?3 UNION SELECT pc_id FROM presence WHERE pc_id > ?3 ORDER BY 1) x
	LEFT JOIN agents a ON a.pc_id = x.pc_id LEFT JOIN presence p ON p.pc_id = x.pc_id`
)

func scanAgent(scan func(...any) error) (a Agent, err error) {
	return a, scan(
		&a.PCID, &a.AgentVersion, &a.Hostname, &a.OSFamily, sequence{&a.Sequence}, nanos{&a.HeardAt}, nanos{&a.HeartbeatAt},
		&a.CPUPct, &a.RSSBytes, &a.DiskReadBytes, &a.DiskWrittenBytes,
	)
}

const (
	agentsHeard order = "agents"
	agentsByID  order = "agents-by-id"
)

// Agents lists endpoints, the last heard first or by id, and gives the cursor of the next page; ErrCursor. Endpoints are
// looked at one by one where they are searched or come in the order of heartbeats, which changes too often for an index:
// that costs what the fleet is large, not what the history is long.
func (r *Reader) Agents(ctx context.Context, f AgentFilter) ([]Agent, string, error) {
	const matches = " (?1 = '' OR instr(lower(%[1]s), lower(?1)) > 0 OR instr(lower(host), lower(?1)) > 0)"
	q := strings.TrimSpace(f.Query)
	if f.ByID {
		var id string
		if err := f.begin(agentsByID, &id); err != nil {
			return nil, "", err
		}
		rows, err := list(ctx, r, scanAgent, selectAgentsByID+" WHERE"+fmt.Sprintf(matches, "x.pc_id")+" ORDER BY x.pc_id LIMIT ?2", q, f.more(), id)
		rows, next := cut(rows, f.Page, func(a *Agent) string { return agentsByID.cursor(a.PCID) })
		return rows, next, err
	}
	heard, id := int64(maxNanos), ""
	if err := f.begin(agentsHeard, &heard, &id); err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, r, scanAgent, selectAgents+" WHERE"+fmt.Sprintf(matches, "COALESCE(a.pc_id, p.pc_id)")+
		" AND (heard < ?3 OR heard = ?3 AND COALESCE(a.pc_id, p.pc_id) > ?4) ORDER BY heard DESC, 1 LIMIT ?2", q, f.more(), heard, id)
	rows, next := cut(rows, f.Page, func(a *Agent) string { return agentsHeard.cursor(toNanos(a.HeardAt), a.PCID) })
	return rows, next, err
}

// Audience is whom an exec asks for, each endpoint once: all that are known, the known members of groups, and the named
// ones, whether they are known or not. An endpoint is known from its first heartbeat on; it may be away.
type Audience struct {
	All         bool
	Groups, PCs []string
}

// CountAudience counts them. The work is that of the parts asked for: with names alone there is no query.
func (r *Reader) CountAudience(ctx context.Context, a Audience) (int, error) {
	query, args := a.query()
	if query == "" {
		return len(slices.Compact(slices.Sorted(slices.Values(a.PCs)))), nil
	}
	return one(ctx, r, scanCount, "SELECT COUNT(*) FROM ("+query+")", args...)
}

// AudienceMembers lists them by id.
func (r *Reader) AudienceMembers(ctx context.Context, a Audience) ([]string, error) {
	query, args := a.query()
	if query == "" {
		return slices.Compact(slices.Sorted(slices.Values(a.PCs))), nil
	}
	ids, err := list(ctx, r, func(scan func(...any) error) (id string, err error) { return id, scan(&id) }, query, args...)
	slices.Sort(ids)
	return ids, err
}

// query is the SQL of the ids; empty where names alone are asked for.
func (a Audience) query() (string, []any) {
	var parts []string
	var args []any
	ask := func(part string, arg any) {
		args = append(args, arg)
		parts = append(parts, fmt.Sprintf(part, len(args)))
	}
	switch {
	case a.All: // the groups are in it
		parts = append(parts, "SELECT pc_id FROM agents")
	case len(a.Groups) > 0:
		ask("SELECT DISTINCT pc_id FROM memberships JOIN agents USING (pc_id) WHERE group_name IN (SELECT value FROM json_each(?%d))", textList(a.Groups))
	}
	if len(parts) > 0 && len(a.PCs) > 0 {
		ask("SELECT value FROM json_each(?%d)", textList(a.PCs))
	}
	return strings.Join(parts, " UNION "), args
}

// Agent reads one endpoint; ErrNotFound.
func (r *Reader) Agent(ctx context.Context, pcID string) (Agent, error) {
	return one(ctx, r, scanAgent, selectAgents+" WHERE COALESCE(a.pc_id, p.pc_id) = ?", pcID)
}

// Memberships lists the groups of an endpoint, sorted; none for an endpoint that nobody knows.
func (r *Reader) Memberships(ctx context.Context, pcID string) ([]string, error) {
	return list(ctx, r, func(scan func(...any) error) (g string, err error) { return g, scan(&g) },
		"SELECT group_name FROM memberships WHERE pc_id = ? ORDER BY group_name", pcID)
}

// Group is a group that has members.
type Group struct {
	Name string
	// Members are endpoints, sorted.
	Members []string
}

// Groups lists all groups by name.
func (r *Reader) Groups(ctx context.Context) ([]Group, error) {
	pairs, err := list(ctx, r, func(scan func(...any) error) (p [2]string, err error) { return p, scan(&p[0], &p[1]) },
		"SELECT group_name, pc_id FROM memberships")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	groups := []Group{}
	for _, p := range pairs {
		if n := len(groups); n == 0 || groups[n-1].Name != p[0] {
			groups = append(groups, Group{Name: p[0]})
		}
		last := &groups[len(groups)-1]
		last.Members = append(last.Members, p[1])
	}
	return groups, nil
}
