package wire

// EmitEvents is the one EmitConfig.Type there is.
const EmitEvents = "events"

// EmitConfig makes an agent send each stdout line as an ObsEvent, on exit 0 only; the result's stdout is then empty.
// Part of Command; strict: 0.43.45 refuses a command with another key in here.
type EmitConfig struct {
	// Type is EmitEvents.
	Type string `json:"type"`
	// WatermarkPath is a note to readers; agents do nothing with it.
	WatermarkPath string `json:"watermark_path,omitzero"`
}

// UnmarshalJSON reads and checks.
func (e *EmitConfig) UnmarshalJSON(data []byte) (err error) {
	*e, err = decode[EmitConfig]("emit", data)
	return err
}

func (EmitConfig) strictKeys() {}

func (e *EmitConfig) check() error {
	if e.Type != EmitEvents {
		return &FieldError{"type", "must be events, not " + quote(e.Type)}
	}
	return nil
}
