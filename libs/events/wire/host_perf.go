package wire

import "time"

// HostPerf is a sample of the whole endpoint. Subject host_perf.<pc_id>, from agents over core NATS, every 60 s (see
// ConfigScope.HostPerfInterval). CPU and rates are not in the first.
type HostPerf struct {
	PCID string `json:"pc_id"`
	// At is the agent's clock.
	At time.Time `json:"at"`
	// CPUPct is percent of all cores, 0 to 100.
	CPUPct   *float64 `json:"cpu_pct,omitzero"`
	CPUCount *uint32  `json:"cpu_count,omitzero"`

	MemUsedBytes   *uint64 `json:"mem_used_bytes,omitzero"`
	MemTotalBytes  *uint64 `json:"mem_total_bytes,omitzero"`
	SwapUsedBytes  *uint64 `json:"swap_used_bytes,omitzero"`
	SwapTotalBytes *uint64 `json:"swap_total_bytes,omitzero"`

	DiskReadBytesPerSec    *float64 `json:"disk_read_bytes_per_sec,omitzero"`
	DiskWrittenBytesPerSec *float64 `json:"disk_written_bytes_per_sec,omitzero"`
	NetRxBytesPerSec       *float64 `json:"net_rx_bytes_per_sec,omitzero"`
	NetTxBytesPerSec       *float64 `json:"net_tx_bytes_per_sec,omitzero"`
}

// DecodeHostPerf reads a HostPerf. Errors wrap *FieldError.
func DecodeHostPerf(data []byte) (HostPerf, error) { return decode[HostPerf]("host perf", data) }

// UnmarshalJSON is DecodeHostPerf.
func (p *HostPerf) UnmarshalJSON(data []byte) (err error) { *p, err = DecodeHostPerf(data); return err }

// MarshalJSON writes the wire's form.
func (p HostPerf) MarshalJSON() ([]byte, error) { return encode(p) }
