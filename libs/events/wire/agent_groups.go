package wire

import "slices"

// AgentGroups are the groups of an endpoint. Bucket agent_groups, key <pc_id>; read by agents. What does not decode, and a
// deleted key, mean no groups.
type AgentGroups struct {
	// Groups are sorted and unique.
	Groups []string `json:"groups"`
}

// NewAgentGroups sorts the groups and drops what is there twice.
func NewAgentGroups(groups ...string) AgentGroups {
	sorted := append([]string{}, groups...)
	slices.Sort(sorted)
	return AgentGroups{Groups: slices.Compact(sorted)}
}

// DecodeAgentGroups reads AgentGroups, in whatever order they were written. Errors wrap *FieldError.
func DecodeAgentGroups(data []byte) (AgentGroups, error) {
	g, err := decode[AgentGroups]("agent groups", data)
	if err != nil {
		return AgentGroups{}, err
	}
	return NewAgentGroups(g.Groups...), nil
}

// UnmarshalJSON is DecodeAgentGroups.
func (g *AgentGroups) UnmarshalJSON(data []byte) (err error) {
	*g, err = DecodeAgentGroups(data)
	return err
}

// MarshalJSON writes the wire's form.
func (g AgentGroups) MarshalJSON() ([]byte, error) { return encode(g) }
