package domain

import (
	"slices"
	"strings"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Endpoint is one endpoint as the scheduler knows it.
type Endpoint struct {
	events.AgentSeen
	// Known: its first heartbeat is in the log. An endpoint may have groups before it is known.
	Known   bool     `json:"known,omitempty"`
	Groups  []string `json:"groups,omitempty"`
	LastSeq uint64   `json:"last_seq"`
	// HeardAt is the newest heartbeat's arrival; it comes from PRESENCE, not from the log, and is not saved.
	HeardAt time.Time `json:"-"`
}

// Alive reports whether it has been heard within events.AliveFor.
func (e *Endpoint) Alive(now time.Time) bool {
	return events.Alive(e.HeardAt, now)
}

// Fleet is every endpoint by id.
type Fleet map[string]*Endpoint

// get makes the endpoint when it is not there.
func (f Fleet) get(id string) *Endpoint {
	e := f[id]
	if e == nil {
		e = &Endpoint{AgentSeen: events.AgentSeen{PCID: id}}
		f[id] = e
	}
	return e
}

// in reports whether the endpoint belongs to all or to one of the groups.
func (e *Endpoint) in(all bool, groups []string) bool {
	return all || slices.ContainsFunc(e.Groups, func(g string) bool { return slices.Contains(groups, g) })
}

// Seen is the fact that a heartbeat makes true, if it says anything that the log does not know. An endpoint whose id
// is not legal is never registered: ok is false.
func (f Fleet) Seen(h wire.Heartbeat) (fact events.AgentSeen, expected uint64, ok bool) {
	fact = events.AgentSeen{PCID: h.PCID, AgentVersion: h.AgentVersion, Hostname: h.Hostname, OSFamily: h.OSFamily}
	if events.ValidID(h.PCID) != nil {
		return fact, 0, false
	}
	e := f[h.PCID]
	if e == nil {
		return fact, 0, true
	}
	return fact, e.LastSeq, !e.Known || e.AgentSeen != fact
}

// CanRun tells whether the endpoint's agent can run the script, and the reason why not. Agents of 0.43.45 drop a command
// with a shell that they do not know without any report, so they are told apart before anything is sent; ours know the
// shells of their system.
func (e *Endpoint) CanRun(s events.Script) (reason string, ok bool) {
	shells := []string{"sh", "pwsh"}
	switch {
	case !e.Known:
		return "", true
	case oldAgent(e.AgentVersion):
		shells = []string{"powershell", "cmd"}
	case e.OSFamily == "windows":
		shells = []string{"powershell", "cmd", "pwsh"}
	}
	if !slices.Contains(shells, s.Shell) {
		return events.SkipReasonShell, false
	}
	return "", true
}

// oldAgent reports whether the version is of the Rust agent, whose last line is 0.43.
func oldAgent(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return major == "0" && minor != "" && (len(minor) < 2 || len(minor) == 2 && minor <= "43")
}
