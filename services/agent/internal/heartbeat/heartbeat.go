// Package heartbeat says that the endpoint is there: a core publish at the start, after every reconnection and at a
// steady interval, and an answer to whoever pings. Presence is judged by the broker's time of arrival, so a beat that
// can't be sent is dropped, never kept.
package heartbeat

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/shirou/gopsutil/v4/process"

	"kanade/libs/events/wire"
)

// Version is what the agent calls itself. Agents before 1.0.0 are kanade 0.43.x, which run powershell and cmd only.
const Version = "1.0.0"

// Config of the heartbeat.
type Config struct {
	Conn     *nats.Conn
	PCID     string
	Interval time.Duration
	Logger   *slog.Logger
}

// Run beats until ctx is done. The interval is spread by a tenth, so that a fleet that was started at once does not beat
// at once for ever.
func Run(ctx context.Context, c Config) error {
	pings := make(chan *nats.Msg, 16)
	sub, err := c.Conn.ChanSubscribe(wire.SubjectPing(c.PCID), pings)
	if err != nil {
		return fmt.Errorf("subscribe to pings: %w", err)
	}
	defer sub.Unsubscribe()
	status := c.Conn.StatusChanged(nats.CONNECTED)
	defer c.Conn.RemoveStatusListener(status)
	m := meter{}
	m.self, _ = process.NewProcess(int32(os.Getpid()))
	timer := time.NewTimer(time.Nanosecond)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ping := <-pings:
			if data, err := json.Marshal(identity(c.PCID)); err == nil {
				_ = ping.Respond(data)
			}
			continue
		case <-status:
		case <-timer.C:
		}
		beat := identity(c.PCID)
		m.measure(&beat)
		data, err := json.Marshal(beat)
		if err == nil {
			err = c.Conn.Publish(wire.SubjectHeartbeat(c.PCID), data)
		}
		if err != nil {
			c.Logger.Debug("a heartbeat could not be sent", "error", err)
		}
		timer.Reset(c.Interval - c.Interval/20 + rand.N(c.Interval/10+1))
	}
}

// identity is who the endpoint is, without measurements.
func identity(pcID string) wire.Heartbeat {
	return wire.Heartbeat{PCID: pcID, At: time.Now(), AgentVersion: Version, Hostname: hostname(), OSFamily: osFamily()}
}

func hostname() string {
	for _, name := range []string{"COMPUTERNAME", "HOSTNAME"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	name, _ := os.Hostname()
	return name
}

func osFamily() string {
	if runtime.GOOS == "darwin" {
		return "macos"
	}
	return runtime.GOOS
}

// meter measures this process. What the system does not tell is left out.
type meter struct {
	self *process.Process
	cpu  float64 // seconds used until
	at   time.Time
}

func (m *meter) measure(h *wire.Heartbeat) {
	if m.self == nil {
		return
	}
	if t, err := m.self.Times(); err == nil {
		used, now := t.User+t.System, time.Now()
		if past := now.Sub(m.at).Seconds(); !m.at.IsZero() && past > 0 {
			pct := max(0, used-m.cpu) / past * 100
			h.AgentCPUPct = &pct
		}
		m.cpu, m.at = used, now
	}
	if mem, err := m.self.MemoryInfo(); err == nil {
		h.AgentRSSBytes = &mem.RSS
	}
	if io, err := m.self.IOCounters(); err == nil {
		read, written := io.DiskReadBytes, io.DiskWriteBytes
		if runtime.GOOS == "windows" {
			read, written = io.ReadBytes, io.WriteBytes
		}
		h.AgentDiskReadBytes, h.AgentDiskWrittenBytes = &read, &written
	}
}
