package domain

import (
	"kanade/libs/catalog"
	"kanade/libs/events"
)

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
