package events

// FleetID is the one id of the aggregate "freeze".
const FleetID = "fleet"

// FreezeSaved is an operator's act: schedules do not fire from From (inclusive) until Until (exclusive), on the whole
// fleet. Manual execs pass.
type FreezeSaved struct {
	ID string `json:"id"`
	// From and Until are RFC 3339 or a date as the operator wrote them, read in TZ (local, utc or an IANA zone); empty: no
	// bound. What can't be read counts as frozen.
	From   string `json:"from,omitempty"`
	Until  string `json:"until,omitempty"`
	Reason string `json:"reason,omitempty"`
	TZ     string `json:"tz"`
}

func (FreezeSaved) EventType() string     { return "kanade.freeze.saved.v1" }
func (p FreezeSaved) AggregateID() string { return p.ID }

// FreezeCleared ends a freeze.
type FreezeCleared struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"`
}

func (FreezeCleared) EventType() string     { return "kanade.freeze.cleared.v1" }
func (p FreezeCleared) AggregateID() string { return p.ID }

var (
	sampleFreezeSaved   = FreezeSaved{ID: FleetID, From: "2026-12-24", Until: "2027-01-02T06:00:00Z", Reason: "holidays", TZ: "Europe/Berlin"}
	sampleFreezeCleared = FreezeCleared{ID: FleetID, Reason: "over"}
)
