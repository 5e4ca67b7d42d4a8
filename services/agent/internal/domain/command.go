package domain

import (
	"fmt"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Heard is a command as it came.
type Heard struct {
	Data []byte
	// TraceParent is the W3C trace context in its header; empty without.
	TraceParent string
	// Late says that it came by catch-up: it may have been called off meanwhile.
	Late bool
	// SentAt is when it was sent, by the broker's clock; zero where nobody says. What comes long after is late as well.
	SentAt time.Time
}

// Command is a command as heard, checked and in units of Go. The ledger keeps it until the run is done.
type Command struct {
	JobID     string `json:"job_id"`
	Version   string `json:"version"`
	RequestID string `json:"request_id"`
	// ExecID is empty for an ad-hoc run, which is answered on results.<request_id> instead of events.run.
	ExecID string `json:"exec_id,omitempty"`
	Script Script `json:"script"`
	// SuccessCodes are the exit codes that mean success; at least one.
	SuccessCodes []int `json:"success_codes"`
	// Timeout of one attempt; at least a second.
	Timeout time.Duration `json:"timeout"`
	// Jitter spreads the start: a uniform wait in [0, Jitter).
	Jitter time.Duration `json:"jitter,omitempty"`
	// Deadline is after when it may not be started, by the endpoint's clock; nil is never.
	Deadline *time.Time `json:"deadline,omitempty"`
	// FreshWithin is set for staleness strict: without a connection it is skipped when the last one began longer ago.
	FreshWithin *time.Duration `json:"fresh_within,omitempty"`
	// Attempts is how often it is tried at most; at least 1. Backoff lies between two attempts.
	Attempts int           `json:"attempts"`
	Backoff  time.Duration `json:"backoff,omitempty"`
}

// Script is what an executor runs.
type Script struct {
	// Shell is sh, pwsh, powershell or cmd.
	Shell string `json:"shell"`
	Body  string `json:"body,omitempty"`
	// Object names a script object that holds the body; ObjectSHA256 is the digest of its bytes in lower-case hex.
	Object       string `json:"object,omitempty"`
	ObjectSHA256 string `json:"object_sha256,omitempty"`
	// RunAs is system, user or system_gui; empty is system.
	RunAs string `json:"run_as,omitempty"`
	// Cwd is the working directory; empty is that of the agent.
	Cwd string `json:"cwd,omitempty"`
	// Env is added to the environment.
	Env map[string]string `json:"env,omitempty"`
	// Args are the script's arguments.
	Args []string `json:"args,omitempty"`
	// Stdin is what the script reads; nothing when empty.
	Stdin string `json:"stdin,omitempty"`
}

// maxJitterSecs keeps a nonsensical jitter within what a Duration holds: ten years.
const maxJitterSecs = 10 * 365 * 24 * 3600

// ParseCommand reads a message of commands.>. An error means that the message can never be run here: it is logged and
// dropped, for there is no run to report on.
func ParseCommand(data []byte) (Command, error) {
	w, err := wire.DecodeCommand(data)
	if err != nil {
		return Command{}, err
	}
	if err := events.ValidID(w.RequestID); err != nil {
		return Command{}, fmt.Errorf("command of job %q: request_id: %w", w.ID, err)
	}
	c := Command{
		JobID: w.ID, Version: w.Version, RequestID: w.RequestID, ExecID: w.ExecID,
		Script: Script{
			Shell: string(w.Shell), Body: w.Script, Object: w.ScriptObject, ObjectSHA256: w.ScriptObjectSHA256,
			RunAs: string(w.RunAs), Cwd: w.CWD, Env: w.Env, Args: w.Args, Stdin: w.Stdin,
		},
		SuccessCodes: w.SuccessCodes, Timeout: w.Timeout(), Deadline: w.DeadlineAt, Attempts: 1,
	}
	if len(c.SuccessCodes) == 0 {
		c.SuccessCodes = []int{0}
	}
	if w.Staleness.Mode == wire.StalenessStrict {
		fresh, err := time.ParseDuration(w.Staleness.MaxCacheAge)
		if err != nil {
			fresh = 0 // it asks to be strict, and says no more that can be read
		}
		c.FreshWithin = &fresh
	}
	if w.JitterSecs != nil {
		c.Jitter = time.Duration(min(*w.JitterSecs, maxJitterSecs)) * time.Second
	}
	if w.Retry != nil {
		c.Attempts += int(w.Retry.Max)
		c.Backoff = w.Retry.Backoff()
	}
	return c, nil
}

// Run names the run of the command on an endpoint. The result id is derived, so however often the command is heard it is
// the same run.
func (c Command) Run(pcID string) events.Run {
	return events.Run{
		PCID: pcID, ExecID: c.ExecID, RequestID: c.RequestID, ResultID: events.ResultID(c.RequestID, pcID),
		JobID: c.JobID, Version: c.Version,
	}
}
