package wire

// Staleness says what an agent does with a command when its view of the broker is old. Part of Command.
//
// In agents of 0.43.45 cached and unchecked differ in nothing: version pin and revocation are looked up live in every
// mode, and a look-up that fails passes.
type Staleness struct {
	// Mode is cached when the whole is absent; the zero value is written as cached.
	Mode StalenessMode `json:"mode"`
	// MaxCacheAge is a duration ("5m"), needed with strict: the agent skips with exit code 127 when it has no connection
	// and its last one began longer ago.
	MaxCacheAge string `json:"max_cache_age,omitzero"`
}

// StalenessMode is a word of the wire.
type StalenessMode string

// The modes.
const (
	StalenessCached    StalenessMode = "cached"
	StalenessStrict    StalenessMode = "strict"
	StalenessUnchecked StalenessMode = "unchecked"
)

// UnmarshalJSON reads and checks.
func (s *Staleness) UnmarshalJSON(data []byte) (err error) {
	*s, err = decode[Staleness]("staleness", data)
	return err
}

// MarshalJSON writes the wire's form.
func (s Staleness) MarshalJSON() ([]byte, error) {
	if s.Mode == "" {
		s.setDefaults()
	}
	return encode(s)
}

func (s *Staleness) setDefaults() { s.Mode = StalenessCached }

func (s *Staleness) check() error {
	switch s.Mode {
	case StalenessCached, StalenessUnchecked:
		return nil
	case StalenessStrict:
		if s.MaxCacheAge == "" {
			return &FieldError{"max_cache_age", "is missing beside mode strict"}
		}
		return nil
	default:
		return &FieldError{"mode", "must be cached, strict or unchecked, not " + quote(string(s.Mode))}
	}
}
