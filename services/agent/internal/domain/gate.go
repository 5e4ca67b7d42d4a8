package domain

import (
	"fmt"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// StatusRevoked is the value of the bucket script_status that keeps a job from running.
const StatusRevoked = "REVOKED"

// Skip says why a command is not run.
type Skip struct {
	// Code is the wire's exit code of the reason; 0 where it has none.
	Code   int
	Reason string
	Detail string
}

// Gates is what was looked up before a command may run. A lookup that failed or found nothing is "", and passes: an
// endpoint that can't reach the broker runs what it was told.
type Gates struct {
	// Current is the version of the job that may run.
	Current string
	// Status of the job.
	Status string
	// Now by the endpoint's own clock.
	Now time.Time
	// Connected is whether the broker can be asked, ConnectedAt when the connection, or the last one, began.
	Connected   bool
	ConnectedAt time.Time
	// ShellSupported is whether this system has the shell.
	ShellSupported bool
}

// Stopped is the skip of a command whose exec was stopped, in a word: killed, cancelled or halted.
func Stopped(word events.Outcome) Skip {
	return Skip{Reason: events.SkipReasonStopped, Detail: string(word)}
}

// Stale tells whether the command is skipped because it is strict and there is no connection for too long. Of the gates
// only the clock and the connection are asked.
func (c Command) Stale(g Gates) (Skip, bool) {
	if c.FreshWithin == nil || g.Connected || g.Now.Sub(g.ConnectedAt) <= *c.FreshWithin {
		return Skip{}, false
	}
	return Skip{wire.ExitStaleness, events.SkipReasonStale,
		fmt.Sprintf("there is no connection, and the last one began at %s, longer ago than %s", stamp(g.ConnectedAt), *c.FreshWithin)}, true
}

// Overdue tells whether the command is skipped because its deadline has passed, by the endpoint's clock.
func (c Command) Overdue(now time.Time) (Skip, bool) {
	if c.Deadline == nil || !now.After(*c.Deadline) {
		return Skip{}, false
	}
	return Skip{wire.ExitDeadline, events.SkipReasonDeadline, fmt.Sprintf("it is %s, the deadline was %s", stamp(now), stamp(*c.Deadline))}, true
}

// Decide tells whether the command is skipped: staleness, version pin, revocation, deadline, shell, identity, in this order.
// Modes of staleness other than strict differ in nothing: pin and revocation are looked up live.
func (c Command) Decide(g Gates) (Skip, bool) {
	if skip, yes := c.Stale(g); yes {
		return skip, true
	}
	switch {
	case g.Current != "" && g.Current != c.Version:
		return Skip{wire.ExitVersionPin, events.SkipReasonVersion,
			fmt.Sprintf("version %s of job %s is not the current one, which is %s", c.Version, c.JobID, g.Current)}, true
	case g.Status == StatusRevoked:
		return Skip{wire.ExitRevoked, events.SkipReasonRevoked, fmt.Sprintf("job %s is revoked", c.JobID)}, true
	}
	if skip, yes := c.Overdue(g.Now); yes {
		return skip, true
	}
	switch {
	case !g.ShellSupported:
		return Skip{0, events.SkipReasonShell, fmt.Sprintf("shell %q is not on this system", c.Script.Shell)}, true
	case c.Script.RunAs != string(wire.RunAsSystem):
		return Skip{0, events.SkipReasonRunAs, fmt.Sprintf("run_as %q is not supported by this agent", c.Script.RunAs)}, true
	}
	return Skip{}, false
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
