package readmodel

import (
	"math"
	"time"

	"kanade/libs/events/wire"
)

// presenceRow is the newest heartbeat of an endpoint.
type presenceRow struct {
	pcID, version, hostname, osFamily         string
	heard, heartbeat                          time.Time
	cpu                                       *float64
	rssBytes, diskReadBytes, diskWrittenBytes *int64
}

var presence = relation{name: "presence", key: 1, columns: []string{
	"pc_id TEXT", "agent_version TEXT", "hostname TEXT", "os_family TEXT", "heard_at INTEGER", "heartbeat_at INTEGER",
	"cpu_pct REAL NULL", "rss_bytes INTEGER NULL", "disk_read_bytes INTEGER NULL", "disk_written_bytes INTEGER NULL",
}}

func (p *presenceRow) fields() []any {
	return []any{
		&p.pcID, &p.version, &p.hostname, &p.osFamily, nanos{&p.heard}, nanos{&p.heartbeat},
		&p.cpu, &p.rssBytes, &p.diskReadBytes, &p.diskWrittenBytes,
	}
}

type presenceProjection struct {
	*rows[presenceRow, *presenceRow]
}

func beginPresence(db *database) projection {
	return presenceProjection{newRows[presenceRow](db, &presence)}
}

func (p presenceProjection) Apply(f *fact) error {
	row, err := p.get(f.heartbeat.PCID)
	if err != nil {
		return err
	}
	row.row = presenceOf(f.heartbeat, f.at)
	p.put(row)
	return nil
}

func (p presenceProjection) Flush() error { return p.flush() }

func presenceOf(h *wire.Heartbeat, heard time.Time) presenceRow {
	return presenceRow{
		pcID: h.PCID, version: h.AgentVersion, hostname: h.Hostname, osFamily: h.OSFamily, heard: heard, heartbeat: h.At,
		cpu: h.AgentCPUPct, rssBytes: signed(h.AgentRSSBytes),
		diskReadBytes: signed(h.AgentDiskReadBytes), diskWrittenBytes: signed(h.AgentDiskWrittenBytes),
	}
}

// signed bounds a count to what SQLite can store.
func signed(n *uint64) *int64 {
	if n == nil {
		return nil
	}
	v := int64(min(*n, math.MaxInt64))
	return &v
}
