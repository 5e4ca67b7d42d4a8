package events

import "time"

// AliveFor is how long an endpoint counts as alive after a heartbeat, by the broker's time of arrival.
const AliveFor = 2 * time.Minute

// Alive reports whether an endpoint that was last heard at heardAt (zero: never) is alive at now.
func Alive(heardAt, now time.Time) bool { return !heardAt.IsZero() && now.Sub(heardAt) <= AliveFor }

// AgentSeen is what an endpoint is. When it was last heard is not a fact of the log but of PRESENCE.
type AgentSeen struct {
	PCID         string `json:"pc_id"`
	AgentVersion string `json:"agent_version"`
	Hostname     string `json:"hostname,omitempty"`
	// OSFamily is windows, linux or macos.
	OSFamily string `json:"os_family,omitempty"`
}

func (AgentSeen) EventType() string     { return "kanade.agent.seen.v1" }
func (p AgentSeen) AggregateID() string { return p.PCID }

// AgentGrouped is an endpoint's membership.
type AgentGrouped struct {
	PCID string `json:"pc_id"`
	// Groups is the whole list, sorted and unique.
	Groups []string `json:"groups"`
}

func (AgentGrouped) EventType() string     { return "kanade.agent.grouped.v1" }
func (p AgentGrouped) AggregateID() string { return p.PCID }

var (
	sampleAgentSeen    = AgentSeen{PCID: "pc-01", AgentVersion: "1.0.0", Hostname: "host-01", OSFamily: "linux"}
	sampleAgentGrouped = AgentGrouped{PCID: "pc-01", Groups: []string{"canary", "tokyo"}}
)
