package domain

import (
	"kanade/libs/catalog"
	"kanade/libs/events"
)

// Freeze is the freeze of the fleet as the log has it.
type Freeze struct {
	// Saved is nil when there is none, or none any more.
	Saved *events.FreezeSaved
	// Seq is the LOG sequence of the newest fact: also what an append expects; 0 when there is none.
	Seq uint64
}

// SaveFreeze decides what a freeze appends; nil when it is so already.
func SaveFreeze(cur Freeze, f *catalog.Freeze) *events.FreezeSaved {
	saved := &events.FreezeSaved{ID: events.FleetID, From: f.From, Until: f.Until, Reason: f.Reason, TZ: string(f.TZ)}
	if cur.Saved != nil && *cur.Saved == *saved {
		return nil
	}
	return saved
}

// ClearFreeze decides what ending it appends; nil when there is none.
func ClearFreeze(cur Freeze, reason string) *events.FreezeCleared {
	if cur.Saved == nil {
		return nil
	}
	return &events.FreezeCleared{ID: events.FleetID, Reason: reason}
}
