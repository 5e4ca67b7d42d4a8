package wire

// Freeze stops scheduled runs. Bucket fleet_config, key freeze; read by agents. Strict: one more key or another zone makes
// it unreadable, and unreadable means frozen; absent or deleted means not frozen.
type Freeze struct {
	// From and Until are the operator's text, YYYY-MM-DD or RFC 3339; empty is open.
	From   string `json:"from,omitzero"`
	Until  string `json:"until,omitzero"`
	Reason string `json:"reason,omitzero"`
	// TZ is the zone of bounds without one; local when absent.
	TZ Zone `json:"tz,omitzero" wire:"default"`
}

// Zone is a time zone by the two words that 0.43.45 knows.
type Zone string

// The zones. ZoneLocal is that of whoever reads it.
const (
	ZoneLocal Zone = "local"
	ZoneUTC   Zone = "utc"
)

// DecodeFreeze reads a Freeze. Errors wrap *FieldError.
func DecodeFreeze(data []byte) (Freeze, error) { return decode[Freeze]("freeze", data) }

// UnmarshalJSON is DecodeFreeze.
func (f *Freeze) UnmarshalJSON(data []byte) (err error) { *f, err = DecodeFreeze(data); return err }

// MarshalJSON writes the wire's form.
func (f Freeze) MarshalJSON() ([]byte, error) { return encode(f) }

func (Freeze) strictKeys() {}

func (f *Freeze) setDefaults() { f.TZ = ZoneLocal }

func (f *Freeze) check() error {
	if f.TZ != ZoneLocal && f.TZ != ZoneUTC {
		return &FieldError{"tz", "must be local or utc, not " + quote(string(f.TZ))}
	}
	return nil
}
