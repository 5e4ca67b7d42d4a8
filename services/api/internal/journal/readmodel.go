package journal

import (
	"context"

	"kanade/libs/events"
)

// CheckReadModel asks every projector to hold its copy against the log, and to build it anew where rebuild is set.
func (j *Journal) CheckReadModel(ctx context.Context, c Caller, rebuild bool, reason string) (uint64, error) {
	s := subject{aggregate: events.AggregateConfig, id: events.ReadModelID, fact: factCheckRequested, unchecked: true}
	return j.write(ctx, c, s, func(context.Context) (decision, error) {
		return decision{fact: events.ReadModelCheckRequested{ID: events.ReadModelID, Rebuild: rebuild, Reason: reason}}, nil
	})
}
