package wire

import "time"

// ConfigScope is what one scope says of the agents' configuration. Bucket agent_config, keys global, groups.<group>,
// pcs.<pc_id>; read by agents. Nil says nothing; the effective value of each field is the built-in one, overlaid by
// global, by the groups in alphabetical order, by the endpoint's own.
//
// Durations are kept as text: one that does not parse counts as the built-in one. A scope that does not decode is to be
// ignored whole.
type ConfigScope struct {
	// TargetVersion is the agent version to update to.
	TargetVersion *string `json:"target_version,omitzero"`
	// TargetVersionJitter spreads the update; built in "10m".
	TargetVersionJitter *string `json:"target_version_jitter,omitzero"`
	// HeartbeatInterval is built in as "30s". "0s" ends the loop until the agent restarts: writers refuse it.
	HeartbeatInterval *string `json:"heartbeat_interval,omitzero"`
	// HostPerfInterval is built in as "60s". "0s" ends the loop until the agent restarts: writers refuse it.
	HostPerfInterval *string `json:"host_perf_interval,omitzero"`
	// ProcessPerfEnabled is built in as false.
	ProcessPerfEnabled *bool `json:"process_perf_enabled,omitzero"`
	// ProcessPerfExpiresAt ends it, by the agent's clock.
	ProcessPerfExpiresAt *time.Time `json:"process_perf_expires_at,omitzero"`
	// ProcessPerfTopN is how many processes a sample has; built in 20.
	ProcessPerfTopN *uint32 `json:"process_perf_top_n,omitzero"`
}

// DecodeConfigScope reads a ConfigScope. Errors wrap *FieldError.
func DecodeConfigScope(data []byte) (ConfigScope, error) {
	return decode[ConfigScope]("config scope", data)
}

// UnmarshalJSON is DecodeConfigScope.
func (s *ConfigScope) UnmarshalJSON(data []byte) (err error) {
	*s, err = DecodeConfigScope(data)
	return err
}

// MarshalJSON writes the wire's form.
func (s ConfigScope) MarshalJSON() ([]byte, error) { return encode(s) }
