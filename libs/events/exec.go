package events

import (
	"encoding/json"
	"time"
)

// Script is what runs on an endpoint, resolved: exactly one of Body and Object.
type Script struct {
	// Shell is sh, pwsh, powershell or cmd.
	Shell string `json:"shell"`
	Body  string `json:"body,omitempty"`
	// Object names a script object; ObjectSHA256 pins its bytes (lower-case hex).
	Object       string `json:"object,omitempty"`
	ObjectSHA256 string `json:"object_sha256,omitempty"`
	// TimeoutSecs is whole seconds, at least 1.
	TimeoutSecs uint64 `json:"timeout_secs"`
	// RunAs is system, user or system_gui.
	RunAs string `json:"run_as"`
	Cwd   string `json:"cwd,omitempty"`
}

// ExecRequested asks for a job to be run. It holds everything that decides what runs, so that nothing that changes
// afterwards (the job, the schedule, a group) changes it.
type ExecRequested struct {
	ExecID  string `json:"exec_id"`
	JobID   string `json:"job_id"`
	Version string `json:"version"`
	// JobSequence and JobHash name the document that runs: its LOG sequence and its hash.
	JobSequence uint64 `json:"job_sequence"`
	JobHash     string `json:"job_hash"`
	Script      Script `json:"script"`
	// Plan is the plan document (libs/catalog) as JSON.
	Plan json.RawMessage `json:"plan"`
	// ScheduleID and Nominal say which tick asked; empty for a manual exec.
	ScheduleID string     `json:"schedule_id,omitempty"`
	Nominal    *time.Time `json:"nominal,omitempty"`
	// DeadlineAt is after when no endpoint may start it; nil when only the expiry bounds it.
	DeadlineAt *time.Time `json:"deadline_at,omitempty"`
	// Origin is what the client calls itself (X-Kanade-Source); empty when it did not say.
	Origin string `json:"origin,omitempty"`
	// IdempotencyKey is the client's, and RequestHash the SHA-256 of the body it came with.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	RequestHash    string `json:"request_hash,omitempty"`
}

func (ExecRequested) EventType() string     { return "kanade.exec.requested.v1" }
func (p ExecRequested) AggregateID() string { return p.ExecID }

// PlannedWave is one wave of a plan. Each endpoint is in the first wave that names it, in no other.
type PlannedWave struct {
	// DueAt is when the wave is released.
	DueAt time.Time `json:"due_at"`
	// Expected endpoints are waited for: alive when it was planned, or named.
	Expected []string `json:"expected,omitempty"`
	// Waiting endpoints are members of the target that were away: they run it if they return before the expiry, and the
	// outcome does not wait for them.
	Waiting []string `json:"waiting,omitempty"`
}

// SkippedPC is an endpoint of the target that the plan leaves out, and why.
type SkippedPC struct {
	PCID   string `json:"pc_id"`
	Reason string `json:"reason"`
}

// Reasons for which a plan leaves an endpoint out.
const (
	SkipReasonShell = "shell_not_supported"
	SkipReasonRunAs = "run_as_not_supported"
)

// ExecPlanned decides who runs it and when. It is one message, so that a plan is never torn.
type ExecPlanned struct {
	ExecID  string        `json:"exec_id"`
	Waves   []PlannedWave `json:"waves"`
	Skipped []SkippedPC   `json:"skipped,omitempty"`
	// Subjects are the broadcast subjects of an exec that goes out to all; empty when each endpoint gets its own command.
	Subjects []string `json:"subjects,omitempty"`
	// RequestID is shared by the commands on Subjects, so that an endpoint that hears two of them runs once.
	RequestID string `json:"request_id,omitempty"`
	// DeadlineAt is after when no endpoint may start it: what every command bears. At the latest the expiry.
	DeadlineAt time.Time `json:"deadline_at"`
	// ExpiresAt is when nobody is waited for any more.
	ExpiresAt time.Time `json:"expires_at"`
}

func (ExecPlanned) EventType() string     { return "kanade.exec.planned.v1" }
func (p ExecPlanned) AggregateID() string { return p.ExecID }

// WaveReleased lets a wave's commands go out.
type WaveReleased struct {
	ExecID string `json:"exec_id"`
	// Wave counts from 0.
	Wave int `json:"wave"`
	// ExecStreamSequence is the last sequence of EXEC when the wave was released.
	ExecStreamSequence uint64 `json:"exec_stream_sequence"`
}

func (WaveReleased) EventType() string     { return "kanade.exec.wave-released.v1" }
func (p WaveReleased) AggregateID() string { return p.ExecID }

// WaveDispatched says that all commands of a wave are stored.
type WaveDispatched struct {
	ExecID string `json:"exec_id"`
	Wave   int    `json:"wave"`
	// Commands is how many messages the wave is.
	Commands int `json:"commands"`
	// ExecStreamSequence is the last sequence of EXEC when they were stored: nothing the wave sent lies after it.
	ExecStreamSequence uint64 `json:"exec_stream_sequence"`
}

func (WaveDispatched) EventType() string     { return "kanade.exec.wave-dispatched.v1" }
func (p WaveDispatched) AggregateID() string { return p.ExecID }

// ExecClosed ends an exec whose expected endpoints have all answered.
type ExecClosed struct {
	ExecID  string  `json:"exec_id"`
	Outcome Outcome `json:"outcome"`
	// Reason says more where the outcome alone does not: "no_target".
	Reason string `json:"reason,omitempty"`
	Totals Totals `json:"totals"`
}

func (ExecClosed) EventType() string     { return "kanade.exec.closed.v1" }
func (p ExecClosed) AggregateID() string { return p.ExecID }

// ReasonNoTarget closes an exec whose target matches no known endpoint.
const ReasonNoTarget = "no_target"

// ExecExpired ends whatever of an exec is still open.
type ExecExpired struct {
	ExecID string `json:"exec_id"`
	// Outcome is the exec's unless an earlier fact has ended it.
	Outcome Outcome `json:"outcome"`
	Totals  Totals  `json:"totals"`
}

func (ExecExpired) EventType() string     { return "kanade.exec.expired.v1" }
func (p ExecExpired) AggregateID() string { return p.ExecID }

var (
	sampleExecRequested = ExecRequested{
		ExecID: "ed70b3bc-5ac5-4c70-a90d-b319c4557e8e", JobID: "hello", Version: "1.0.0", JobSequence: 7, JobHash: sampleDocument.Hash,
		Script: Script{Shell: "sh", Body: "echo hello\n", TimeoutSecs: 30, RunAs: "system", Cwd: "/tmp"},
		Plan:   json.RawMessage(`{"target":{"all":true}}`), ScheduleID: "nightly", Nominal: &sampleTime, DeadlineAt: &sampleTime,
		Origin: "cli", IdempotencyKey: "k1", RequestHash: sampleDocument.Hash,
	}
	sampleExecPlanned = ExecPlanned{
		ExecID:  sampleExecRequested.ExecID,
		Waves:   []PlannedWave{{DueAt: sampleTime, Expected: []string{"pc-01", "pc-02"}, Waiting: []string{"pc-03"}}},
		Skipped: []SkippedPC{{PCID: "pc-04", Reason: SkipReasonShell}}, Subjects: []string{"commands.all"},
		RequestID: "8b86c84d-8db9-4b0a-b0a9-6a5d7563750e", DeadlineAt: sampleTime, ExpiresAt: sampleTime,
	}
	sampleWaveReleased   = WaveReleased{ExecID: sampleExecRequested.ExecID, Wave: 0, ExecStreamSequence: 40}
	sampleWaveDispatched = WaveDispatched{ExecID: sampleExecRequested.ExecID, Wave: 0, Commands: 1, ExecStreamSequence: 41}
	sampleExecClosed     = ExecClosed{ExecID: sampleExecRequested.ExecID, Outcome: OutcomePartial, Reason: ReasonNoTarget, Totals: sampleTotals}
	sampleExecExpired    = ExecExpired{ExecID: sampleExecRequested.ExecID, Outcome: OutcomeExpired, Totals: sampleTotals}
)
