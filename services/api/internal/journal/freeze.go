package journal

import (
	"context"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// SaveFreeze freezes the fleet, or changes the freeze that there is.
func (j *Journal) SaveFreeze(ctx context.Context, c Caller, f *catalog.Freeze) (uint64, error) {
	return j.writeFreeze(ctx, c, factSaved, func(cur domain.Freeze) events.Payload {
		if saved := domain.SaveFreeze(cur, f); saved != nil {
			return *saved
		}
		return nil
	})
}

// ClearFreeze ends a freeze; the reason may be empty.
func (j *Journal) ClearFreeze(ctx context.Context, c Caller, reason string) (uint64, error) {
	return j.writeFreeze(ctx, c, factCleared, func(cur domain.Freeze) events.Payload {
		if cleared := domain.ClearFreeze(cur, reason); cleared != nil {
			return *cleared
		}
		return nil
	})
}

func (j *Journal) writeFreeze(ctx context.Context, c Caller, fact string, decide func(domain.Freeze) events.Payload) (uint64, error) {
	return j.write(ctx, c, subject{aggregate: events.AggregateFreeze, id: events.FleetID, fact: fact}, func(ctx context.Context) (decision, error) {
		cur, err := only[events.FreezeSaved](ctx, j.bus, events.AggregateFreeze, events.FleetID)
		if err != nil {
			return decision{}, err
		}
		return decision{fact: decide(cur), sequence: cur.Seq, expected: cur.Last}, nil
	})
}
