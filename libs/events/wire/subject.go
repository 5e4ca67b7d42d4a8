package wire

import (
	"slices"
	"strings"
)

// Ids stand in these subjects as they are: a host name with dots makes more tokens. So consumers filter with ">" and take
// identities from the payload, and whoever builds a subject has checked the id (events.ValidID) before.

// SubjectCommandAll carries Commands for every endpoint. Captured by EXEC, and heard live by core subscribers.
const SubjectCommandAll = "commands.all"

// SubjectCommandGroup carries Commands for the members of a group.
func SubjectCommandGroup(group string) string { return "commands.group." + group }

// SubjectCommandPC carries Commands for one endpoint.
func SubjectCommandPC(pcID string) string { return "commands.pc." + pcID }

// SubjectResults carries the ExecResult of a request: from old agents all of them, from ours only those without an exec
// id, for which the CLI of 0.43.45 waits here.
func SubjectResults(requestID string) string { return "results." + requestID }

// SubjectStarted carries the EventStarted of an old agent.
func SubjectStarted(execID, pcID string) string { return "events.started." + execID + "." + pcID }

// SubjectKill carries an empty message to agents, over core NATS; heard only while a child of that exec runs or waits for
// a retry.
func SubjectKill(execID string) string { return "kill." + execID }

// SubjectHeartbeat carries Heartbeats from agents; captured by PRESENCE.
func SubjectHeartbeat(pcID string) string { return "heartbeat." + pcID }

// SubjectHostPerf carries HostPerf samples from agents.
func SubjectHostPerf(pcID string) string { return "host_perf." + pcID }

// SubjectProcessPerf carries ProcessPerf samples from agents.
func SubjectProcessPerf(pcID string) string { return "process_perf." + pcID }

// SubjectObs carries ObsEvents from agents.
func SubjectObs(pcID string) string { return "obs." + pcID }

// SubjectLogsFetch takes a LogsRequest; the reply is text, failures included. Callers wait 10 s.
func SubjectLogsFetch(pcID string) string { return "logs.fetch." + pcID }

// SubjectJobTail takes a JobTailRequest; the reply is a JobTailReply. Callers wait 3 s.
func SubjectJobTail(pcID string) string { return "job.tail." + pcID }

// SubjectPing takes an empty request; the reply is a Heartbeat without agent_* measurements. Callers wait 5 s.
func SubjectPing(pcID string) string { return "agents." + pcID + ".ping" }

// SubjectAudit carries AuditEvents from the CLI and the old backend; target may be empty.
func SubjectAudit(actor, action, target string) string {
	if target == "" {
		return "audit." + actor + "." + action
	}
	return "audit." + actor + "." + action + "." + target
}

// Filters of whoever consumes the messages of all endpoints.
const (
	FilterCommands    = "commands.>"
	FilterResults     = "results.>"
	FilterStarted     = "events.started.>"
	FilterHeartbeat   = "heartbeat.>"
	FilterHostPerf    = "host_perf.>"
	FilterProcessPerf = "process_perf.>"
	FilterObs         = "obs.>"
	FilterAudit       = "audit.>"
)

// ReplayDurable names the durable consumer that an agent of 0.43.45 keeps on EXEC: characters outside [A-Za-z0-9_-]
// become underscores, so two endpoints may share one.
func ReplayDurable(pcID string) string {
	return "agent_replay_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, pcID)
}

// ReplayFilters are that consumer's filter subjects: all, the endpoint, then its groups, sorted.
func ReplayFilters(pcID string, groups []string) []string {
	filters := []string{SubjectCommandAll, SubjectCommandPC(pcID)}
	for _, g := range slices.Sorted(slices.Values(groups)) {
		filters = append(filters, SubjectCommandGroup(g))
	}
	return filters
}
