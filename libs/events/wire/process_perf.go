package wire

import "time"

// ProcessPerf is a sample of the busiest processes. Subject process_perf.<pc_id>, from agents over core NATS, at the
// interval of HostPerf while ConfigScope.ProcessPerfEnabled.
type ProcessPerf struct {
	PCID string `json:"pc_id"`
	// At is the agent's clock.
	At time.Time `json:"at"`
	// Processes are ordered by falling CPU.
	Processes []ProcessSample `json:"processes"`
}

// ProcessSample is one process in a ProcessPerf.
type ProcessSample struct {
	PID  uint32 `json:"pid"`
	Name string `json:"name"`
	// CPUPct is in percent.
	CPUPct float64 `json:"cpu_pct"`
	// RSSBytes is resident memory.
	RSSBytes uint64 `json:"rss_bytes"`

	DiskReadBytesPerSec    *float64 `json:"disk_read_bytes_per_sec,omitzero"`
	DiskWrittenBytesPerSec *float64 `json:"disk_written_bytes_per_sec,omitzero"`
}

// DecodeProcessPerf reads a ProcessPerf. Errors wrap *FieldError.
func DecodeProcessPerf(data []byte) (ProcessPerf, error) {
	return decode[ProcessPerf]("process perf", data)
}

// UnmarshalJSON is DecodeProcessPerf.
func (p *ProcessPerf) UnmarshalJSON(data []byte) (err error) {
	*p, err = DecodeProcessPerf(data)
	return err
}

// MarshalJSON writes the wire's form.
func (p ProcessPerf) MarshalJSON() ([]byte, error) { return encode(p) }
