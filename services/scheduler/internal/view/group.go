// Package view keeps the buckets that agents read equal to the log. A value carries the log sequence it was made from and
// is never replaced by an earlier one; what somebody else has written there is left for its adoption.
package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// GroupsDurable is the name of the consumer and handler of memberships.
const GroupsDurable = "view-groups"

// GroupsFilters are the subjects of the facts that Groups handles.
func GroupsFilters() []string { return []string{events.FactFilter(events.AggregateAgent, "grouped")} }

// Groups returns the handler that writes memberships into the bucket agent_groups.
func Groups(b *bus.Bus, logger *slog.Logger) bus.Handler {
	return func(ctx context.Context, m bus.Stored) error {
		p, err := m.Payload()
		if err != nil {
			return bus.Permanent(err)
		}
		grouped, ok := p.(events.AgentGrouped)
		if !ok {
			return nil
		}
		value, err := json.Marshal(wire.AgentGroups{Groups: grouped.Groups})
		if err != nil {
			return bus.Permanent(fmt.Errorf("encode groups of %s: %w", grouped.PCID, err))
		}
		err = b.PutView(ctx, events.BucketAgentGroups, grouped.PCID, value, m.Seq)
		if errors.Is(err, bus.ErrForeign) {
			logger.Warn("a membership that an old CLI wrote stands in the way; it is left alone", "pc", grouped.PCID, "sequence", m.Seq)
			return nil
		}
		return err
	}
}
