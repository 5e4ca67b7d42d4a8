package fanout

import (
	"slices"
	"strings"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Endpoint is one endpoint as far as a plan asks.
type Endpoint struct {
	PCID, AgentVersion, OSFamily string
	// Known: its first heartbeat is in the log. An endpoint may have groups before it is known.
	Known  bool
	Groups []string
	// HeardAt is the newest heartbeat's arrival by the broker's clock; zero: never.
	HeardAt time.Time
}

// Alive reports whether it has been heard within events.AliveFor.
func (e Endpoint) Alive(now time.Time) bool { return events.Alive(e.HeardAt, now) }

func (e Endpoint) inAny(groups []string) bool {
	return slices.ContainsFunc(e.Groups, func(g string) bool { return slices.Contains(groups, g) })
}

// CanRun tells whether the endpoint's agent can run the script, and the reason why not. Agents of 0.43.45 drop a command
// with a shell that they do not know without any report, and ignore what has been added to commands since, so they are
// told apart before anything is sent; ours know the shells of their system, and run as themselves only.
func (e Endpoint) CanRun(s events.Script) (reason string, ok bool) {
	shells := []string{"sh", "pwsh"}
	old := oldAgent(e.AgentVersion)
	switch {
	case !e.Known:
		return "", true
	case old:
		shells = []string{"powershell", "cmd"}
	case e.OSFamily == "windows":
		shells = []string{"powershell", "cmd", "pwsh"}
	}
	if !slices.Contains(shells, s.Shell) {
		return events.SkipReasonShell, false
	}
	// Off Windows an old agent answers the other identities with success, without running anything.
	if s.RunAs != "" && s.RunAs != string(wire.RunAsSystem) && !(old && e.OSFamily == "windows") {
		return events.SkipReasonRunAs, false
	}
	if old && (len(s.Env) > 0 || len(s.Args) > 0 || s.Stdin != "" || s.SuccessCodes != nil) {
		return events.SkipReasonAgentTooOld, false
	}
	return "", true
}

// oldAgent reports whether the version is of the Rust agent, whose last line is 0.43.
func oldAgent(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return major == "0" && minor != "" && (len(minor) < 2 || len(minor) == 2 && minor <= "43")
}
