package domain

import (
	"slices"
	"strconv"
	"strings"

	"kanade/libs/events"
)

// SetGroups decides the fact that gives an endpoint exactly these groups; nil when it is in exactly these already. The
// endpoint need not be known yet.
func SetGroups(pcID string, current, wanted []string) (*events.AgentGrouped, error) {
	for i, g := range wanted {
		if err := CheckID("groups["+strconv.Itoa(i)+"]", g); err != nil {
			return nil, err
		}
	}
	return grouped(pcID, current, wanted), nil
}

// JoinGroup decides the fact that adds an endpoint to a group; nil when it is a member.
func JoinGroup(pcID string, current []string, group string) (*events.AgentGrouped, error) {
	if strings.TrimSpace(group) == "" {
		return nil, RefuseField(Invalid, "group", "must not be blank")
	}
	if err := CheckID("group", group); err != nil {
		return nil, err
	}
	return grouped(pcID, current, append(slices.Clone(current), group)), nil
}

// LeaveGroup decides the fact that takes an endpoint out of a group; nil when it is no member.
func LeaveGroup(pcID string, current []string, group string) *events.AgentGrouped {
	return grouped(pcID, current, slices.DeleteFunc(slices.Clone(current), func(g string) bool { return g == group }))
}

// grouped is the whole list, sorted and unique, unless it is the current one.
func grouped(pcID string, current, wanted []string) *events.AgentGrouped {
	list := append([]string{}, wanted...)
	slices.Sort(list)
	list = slices.Compact(list)
	if slices.Equal(list, current) {
		return nil
	}
	return &events.AgentGrouped{PCID: pcID, Groups: list}
}
