package catalog

import "time"

// Freeze says when schedules of the whole fleet do not fire: the body of PUT /api/freeze. From is inclusive, Until
// exclusive, each RFC 3339 or YYYY-MM-DD (the first instant of that day in TZ); empty: no bound.
type Freeze struct {
	From   string `json:"from,omitzero" is:"null"`
	Until  string `json:"until,omitzero" is:"null"`
	Reason string `json:"reason,omitzero" is:"null"`
	// TZ is local or utc. Agents and CLIs of kanade 0.43.45 read the freeze and take any other zone for an error.
	TZ FreezeZone `json:"tz"`
}

// FreezeZone is the zone of dates in a freeze.
type FreezeZone string

func (FreezeZone) words() []string { return []string{"local", "utc"} }

func (f *Freeze) defaults() { f.TZ = "local" }

// maxFreeze is the size of a freeze as sent, in bytes: a reason has room.
const maxFreeze = 16 << 10

// ParseFreeze reads a freeze, as JSON, strictly and checks its rules. Every error is an *[Error].
func ParseFreeze(body []byte) (*Freeze, error) {
	f := new(Freeze)
	d, err := parse(body, JSON, maxFreeze, f)
	if err != nil {
		return nil, err
	}
	d.bounds("", f.From, f.Until)
	if err := d.err(); err != nil {
		return nil, err
	}
	return f, nil
}

// Holds reports whether the fleet is frozen at an instant: from the first bound, inclusive, to the second, exclusive. local
// is what the zone "local" means. What can't be read counts as frozen.
func (f *Freeze) Holds(at time.Time, local *time.Location) bool {
	from, until, ok := f.Span(local)
	return !ok || !at.Before(from) && (until.IsZero() || at.Before(until))
}

// Span is the freeze's bounds; a zero one is open. False when something in it can't be read.
func (f *Freeze) Span(local *time.Location) (from, until time.Time, ok bool) {
	zone, err := Zone(string(f.TZ), local)
	if err != nil {
		return from, until, false
	}
	from, fromErr := Bound(f.From, zone)
	until, untilErr := Bound(f.Until, zone)
	return from, until, fromErr == nil && untilErr == nil
}
