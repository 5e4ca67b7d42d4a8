package catalog

import "kanade/libs/events"

// Limits of documents. Each is refused with a sentence that names it.
const (
	// MaxID is the length of an id, in characters.
	MaxID = events.MaxIDLength
	// MaxScript is the size of an inline script, in bytes.
	MaxScript = 1 << 20
	// MaxManifest is the size of a manifest, as sent and as stored, in bytes.
	MaxManifest = 3 << 19
	// MaxSchedule is the size of a schedule, as sent and as stored, in bytes: that of a request body.
	MaxSchedule = 2 << 20
	// MaxPlan is the size of a plan as sent, in bytes: MaxPlanPCs endpoints with ids of MaxID characters fit. What is stored
	// of it must fit a message of the log besides (events.MaxPayload, compressed).
	MaxPlan = 16 << 20
	// MaxPlanPCs is the number of endpoints that a plan may name.
	MaxPlanPCs = 100_000
)

// ValidID checks the id of a job, schedule, endpoint or group; the rule is that of events.ValidID.
func ValidID(id string) error { return events.ValidID(id) }
