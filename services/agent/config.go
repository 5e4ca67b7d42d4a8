package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"kanade/libs/events"
)

// Config of an agent. The tags are those of kong: every field is a flag and an environment variable.
type Config struct {
	// ID is the endpoint's id (events.ValidID); empty means the host's name. Two agents of one id would each run every
	// command.
	ID string `name:"id" env:"KANADE_AGENT_ID" help:"Id of this endpoint; the host name if not given."`
	// NATSURL is one or more broker addresses, comma separated.
	NATSURL string `name:"nats-url" env:"KANADE_NATS_URL" default:"nats://127.0.0.1:4222" help:"Broker address; several with commas."`
	// NATSToken is what the broker demands, NATSTokenFile a file that holds it. At most one of them.
	NATSToken     string `name:"nats-token" env:"KANADE_NATS_TOKEN" help:"Token that the broker demands."`
	NATSTokenFile string `name:"nats-token-file" env:"KANADE_NATS_TOKEN_FILE" help:"File that holds the token." type:"path"`
	// Data is the directory of ledger and spool, made if missing (0700); empty means DefaultData. One agent at a time.
	Data string `name:"data" env:"KANADE_AGENT_DATA" help:"Data directory; a place of the system's if not given." type:"path"`
	// Heartbeat is the interval of heartbeats; at least a second. The fleet counts an endpoint as gone after two minutes
	// without one.
	Heartbeat time.Duration `name:"heartbeat" env:"KANADE_AGENT_HEARTBEAT" default:"30s" help:"Interval of heartbeats."`
	// Limit is how many commands are carried out at once; more wait in the order in which they were heard.
	Limit int `name:"limit" env:"KANADE_AGENT_LIMIT" default:"64" help:"Commands carried out at once."`
	// Listen is the address of /healthz, /readyz and /metrics; empty means none: an endpoint opens no port by itself.
	Listen string `name:"listen" env:"KANADE_AGENT_LISTEN" default:"" help:"Address for health and metrics; none if not given."`
}

// Defaults where a Config made in code leaves a field empty.
const (
	DefaultHeartbeat = 30 * time.Second
	DefaultLimit     = 64
)

// DefaultData is where an agent keeps its ledger when nothing else is said: a place of the system's for an administrator,
// else one of the user's.
func DefaultData() (string, error) {
	switch {
	case runtime.GOOS == "windows" && os.Getenv("ProgramData") != "":
		return filepath.Join(os.Getenv("ProgramData"), "kanade", "agent"), nil
	case runtime.GOOS != "windows" && os.Geteuid() == 0:
		return "/var/lib/kanade/agent", nil
	case os.Getenv("XDG_DATA_HOME") != "":
		return filepath.Join(os.Getenv("XDG_DATA_HOME"), "kanade", "agent"), nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find a data directory (name one with --data): %w", err)
	}
	if runtime.GOOS == "linux" {
		dir = filepath.Join(filepath.Dir(dir), ".local", "share")
	}
	return filepath.Join(dir, "kanade", "agent"), nil
}

// complete fills in the defaults and checks what is there.
func (c Config) complete() (_ Config, err error) {
	if c.ID == "" {
		if c.ID, err = os.Hostname(); err != nil {
			return c, fmt.Errorf("find the host name (name the endpoint with --id): %w", err)
		}
	}
	if err := events.ValidID(c.ID); err != nil {
		return c, fmt.Errorf("endpoint id (set it with --id): %w", err)
	}
	if c.Data == "" {
		if c.Data, err = DefaultData(); err != nil {
			return c, err
		}
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = DefaultHeartbeat
	}
	if c.Limit == 0 {
		c.Limit = DefaultLimit
	}
	switch {
	case c.Heartbeat < time.Second:
		return c, fmt.Errorf("heartbeat interval %s: must be at least 1s", c.Heartbeat)
	case c.Limit < 0:
		return c, fmt.Errorf("limit %d: must be at least 1", c.Limit)
	}
	return c, nil
}
