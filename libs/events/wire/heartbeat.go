package wire

import "time"

// Heartbeat says that an agent lives. Subject heartbeat.<pc_id>, from agents over core NATS, at start and every 30 s (see
// ConfigScope.HeartbeatInterval); the first one registers the endpoint. Also the reply to a ping, then without the
// agent's measurements.
//
// Presence is judged by the broker's time of arrival, never by At: an agent with a wrong clock is not dead.
type Heartbeat struct {
	PCID string `json:"pc_id"`
	// At is the agent's clock.
	At           time.Time `json:"at"`
	AgentVersion string    `json:"agent_version"`
	// Hostname is the environment's COMPUTERNAME, else HOSTNAME.
	Hostname string `json:"hostname,omitzero"`
	// OSFamily is windows, linux or macos.
	OSFamily string `json:"os_family,omitzero"`
	// AgentCPUPct is percent of one core; not in the first.
	AgentCPUPct *float64 `json:"agent_cpu_pct,omitzero"`
	// AgentRSSBytes is the agent's resident memory.
	AgentRSSBytes *uint64 `json:"agent_rss_bytes,omitzero"`
	// AgentDiskReadBytes and AgentDiskWrittenBytes count since the agent's start.
	AgentDiskReadBytes    *uint64 `json:"agent_disk_read_bytes,omitzero"`
	AgentDiskWrittenBytes *uint64 `json:"agent_disk_written_bytes,omitzero"`
}

// DecodeHeartbeat reads a Heartbeat. Errors wrap *FieldError.
func DecodeHeartbeat(data []byte) (Heartbeat, error) { return decode[Heartbeat]("heartbeat", data) }

// UnmarshalJSON is DecodeHeartbeat.
func (h *Heartbeat) UnmarshalJSON(data []byte) (err error) {
	*h, err = DecodeHeartbeat(data)
	return err
}

// MarshalJSON writes the wire's form.
func (h Heartbeat) MarshalJSON() ([]byte, error) { return encode(h) }
