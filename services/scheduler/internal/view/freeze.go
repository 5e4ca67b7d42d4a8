package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// keyFreeze is the freeze's key, in fleet_config for old readers and in catalog for ours.
const keyFreeze = "freeze"

func freezeFilters() []string {
	return []string{events.FactFilter(events.AggregateFreeze, "saved"), events.FactFilter(events.AggregateFreeze, "cleared")}
}

// showFreeze is the handler that writes the freeze, or deletes it.
func showFreeze(b *bus.Bus, logger *slog.Logger) bus.Handler {
	return func(ctx context.Context, m bus.Stored) error {
		p, err := m.Payload()
		if err != nil {
			return bus.Permanent(err)
		}
		var whole, old []byte
		switch p := p.(type) {
		case events.FreezeSaved:
			if whole, old, err = freezeValues(p); err != nil {
				return bus.Permanent(fmt.Errorf("encode freeze: %w", err))
			}
		case events.FreezeCleared:
		default:
			return nil
		}
		for bucket, value := range map[string][]byte{events.BucketCatalog: whole, events.BucketFleetConfig: old} {
			err := b.PutView(ctx, bucket, keyFreeze, value, m.Seq)
			if errors.Is(err, bus.ErrForeign) {
				logger.Warn("a freeze that somebody else wrote stands in the way; it is left alone", "bucket", bucket, "sequence", m.Seq)
			} else if err != nil {
				return err
			}
		}
		return nil
	}
}

// freezeValues are the freeze for our agents, bounds and zone as the operator wrote them, and for readers of 0.43.45.
func freezeValues(p events.FreezeSaved) (whole, old []byte, err error) {
	if whole, err = json.Marshal(catalog.Freeze{From: p.From, Until: p.Until, Reason: p.Reason, TZ: catalog.FreezeZone(p.TZ)}); err != nil {
		return nil, nil, err
	}
	old, err = json.Marshal(oldFreeze(p))
	return whole, old, err
}

// oldFreeze says the same in the two zones that a 0.43.45 reader knows: with another one the bounds become instants. A
// bound that can't be read stays as it is, which that reader takes for frozen as we do; so it does with a zone that
// nobody knows.
func oldFreeze(p events.FreezeSaved) wire.Freeze {
	old := wire.Freeze{From: p.From, Until: p.Until, Reason: p.Reason, TZ: wire.Zone(p.TZ)}
	switch old.TZ {
	case wire.ZoneLocal, wire.ZoneUTC:
		return old
	case "":
		old.TZ = wire.ZoneLocal
		return old
	}
	zone, err := catalog.Zone(p.TZ, time.UTC)
	if err != nil {
		return old
	}
	old.TZ = wire.ZoneUTC
	for _, bound := range []*string{&old.From, &old.Until} {
		if t, err := catalog.Bound(*bound, zone); err == nil && !t.IsZero() {
			*bound = t.UTC().Format(time.RFC3339Nano)
		}
	}
	return old
}
