package view

import (
	"fmt"
	"strconv"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// groups is the bucket agent_groups: the membership of each endpoint.
func groups() bucket {
	return bucket{
		name: events.BucketAgentGroups, durable: "view-groups", aggregate: events.AggregateAgent, facts: []string{"grouped"},
		value: func(p events.Payload) ([]byte, bool) {
			grouped, ok := p.(events.AgentGrouped)
			if !ok {
				return nil, false
			}
			return groupsValue(grouped.Groups), true
		},
		act: func(pc string, value []byte) (events.Payload, error) {
			var g wire.AgentGroups
			if value != nil {
				var err error
				if g, err = wire.DecodeAgentGroups(value); err != nil {
					return nil, err
				}
			}
			for i, name := range g.Groups {
				if err := events.ValidID(name); err != nil {
					return nil, fmt.Errorf("groups[%s]: %w", strconv.Itoa(i), err)
				}
			}
			return events.AgentGrouped{PCID: pc, Groups: wire.NewAgentGroups(g.Groups...).Groups}, nil
		},
		nothing: string(groupsValue(nil)),
	}
}

// groupsValue can't fail: a list of strings always has a JSON.
func groupsValue(list []string) []byte {
	value, _ := wire.NewAgentGroups(list...).MarshalJSON()
	return value
}
