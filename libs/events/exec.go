package events

import (
	"encoding/json"
	"iter"
	"math"
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
	// Env is added to the environment, the values of the job's params among it. Args are the script's arguments, Stdin
	// what it reads. SuccessCodes are the exit codes that mean success; nil: 0 alone.
	Env          map[string]string `json:"env,omitempty"`
	Args         []string          `json:"args,omitempty"`
	Stdin        string            `json:"stdin,omitempty"`
	SuccessCodes []int             `json:"success_codes,omitempty"`
	// Staleness is how an endpoint's outdated knowledge of the job counts: cached (also when empty), strict or unchecked;
	// MaxCacheAge, a duration like "5m", belongs to strict.
	Staleness   string `json:"staleness,omitempty"`
	MaxCacheAge string `json:"max_cache_age,omitempty"`
}

// Retry is further attempts on the endpoint after a failure.
type Retry struct {
	// Max is 1 to 10 attempts beside the first, BackoffSecs the pause before each.
	Max         int    `json:"max"`
	BackoffSecs uint64 `json:"backoff_secs"`
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
	// Retry is nil for one attempt.
	Retry *Retry `json:"retry,omitempty"`
	// RetryOf is the exec whose endpoints this one tries again; empty otherwise.
	RetryOf string `json:"retry_of,omitempty"`
	// Reason is what whoever asked gave for it; empty when he did not say.
	Reason string `json:"reason,omitempty"`
	// Origin is what the client calls itself (X-Kanade-Source); empty when it did not say.
	Origin string `json:"origin,omitempty"`
	// IdempotencyKey is the client's, and RequestHash the SHA-256 of the body it came with.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	RequestHash    string `json:"request_hash,omitempty"`
	// TargetCount is how many endpoints the request was answered to be for, kept so that a repeated request is answered
	// the same. It decides nothing (ExecPlanned does); nil where nobody was answered (a schedule's tick) or nobody could
	// count them.
	TargetCount *int `json:"target_count,omitempty"`
}

func (ExecRequested) EventType() string     { return "kanade.exec.requested.v1" }
func (p ExecRequested) AggregateID() string { return p.ExecID }

// PlannedWave is one wave of a plan. Each endpoint is in the first wave that names it, in no other.
type PlannedWave struct {
	// DueAt is when the wave is released, at the earliest: the delay counted from the submission. With After it is the
	// submission, and DelaySecs counts from the end of the wave before.
	DueAt time.Time `json:"due_at"`
	// Label is how the rollout names the wave: "group canary", "10%", "5 endpoints", "3 named"; empty without a rollout.
	Label string `json:"label,omitempty"`
	// After waits for the end of the wave before, and then for DelaySecs.
	After     bool   `json:"after,omitempty"`
	DelaySecs uint64 `json:"delay_secs,omitempty"`
	// Pause waits for an operator (WaveAdvanced).
	Pause bool `json:"pause,omitempty"`
	// Expected endpoints are waited for: alive when it was planned, or named.
	Expected []string `json:"expected,omitempty"`
	// Waiting endpoints are members of the target that were away: they run it if they return before the expiry, and the
	// outcome does not wait for them.
	Waiting []string `json:"waiting,omitempty"`
}

// Size is how many endpoints are in the wave.
func (w PlannedWave) Size() int { return len(w.Expected) + len(w.Waiting) }

// Delay is DelaySecs, or the longest that there is.
func (w PlannedWave) Delay() time.Duration {
	return time.Duration(min(w.DelaySecs, math.MaxInt64/uint64(time.Second))) * time.Second
}

// At is the endpoint at a place, 0 to Size()-1: what WaveReleased and WaveDispatched count by.
func (w PlannedWave) At(place int) string {
	if place < len(w.Expected) {
		return w.Expected[place]
	}
	return w.Waiting[place-len(w.Expected)]
}

// Part is which places of a wave of so many endpoints From and To of a fact are: 0 <= first <= end <= size, whatever numbers
// the log holds. Both 0 are the whole wave; where they have nothing in common with it, both results are 0.
func Part(size, from, to int) (first, end int) {
	if from == 0 && to == 0 {
		return 0, size
	}
	if first, end = max(from, 0), min(to, size); first >= end {
		return 0, 0
	}
	return first, end
}

// Targets are the endpoints that the plan names and what they are by it: wave by wave, then those that it leaves out.
func (p ExecPlanned) Targets() iter.Seq2[string, Target] {
	return func(yield func(string, Target) bool) {
		for i, w := range p.Waves {
			for _, pc := range w.Expected {
				if !yield(pc, Target{State: StateExpected, Expected: true, Planned: true, Wave: i}) {
					return
				}
			}
			for _, pc := range w.Waiting {
				if !yield(pc, Target{State: StateWaiting, Planned: true, Wave: i}) {
					return
				}
			}
		}
		for _, s := range p.Skipped {
			if !yield(s.PCID, Target{State: StateSkipped, Reason: s.Reason, Planned: true}) {
				return
			}
		}
	}
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
	// SkipReasonAgentTooOld: the agent does not know env, args, stdin or success_codes.
	SkipReasonAgentTooOld = "agent_too_old"
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
	// ExpiresAt is when nobody is waited for any more. A wave that is released later than planned moves it (WaveReleased).
	ExpiresAt time.Time `json:"expires_at"`
	// MaxFailures halts the exec when more endpoints than this have failed; MaxParallel is the budget of endpoints
	// that are in flight or have failed. Shares of the target are resolved to endpoints; nil: no limit.
	MaxFailures *int `json:"max_failures,omitempty"`
	MaxParallel *int `json:"max_parallel,omitempty"`
}

func (ExecPlanned) EventType() string     { return "kanade.exec.planned.v1" }
func (p ExecPlanned) AggregateID() string { return p.ExecID }

// WaveReleased lets a wave's commands go out.
type WaveReleased struct {
	ExecID string `json:"exec_id"`
	// Wave counts from 0.
	Wave int `json:"wave"`
	// From and To are the part of the wave that this is, as places in the list of its endpoints, the expected ones first:
	// From is the first, To the one after the last. Both 0: the whole wave (Part). MaxParallel makes parts.
	From int `json:"from,omitempty"`
	To   int `json:"to,omitempty"`
	// ExecStreamSequence is the last sequence of EXEC when the wave was released.
	ExecStreamSequence uint64 `json:"exec_stream_sequence"`
	// DeadlineAt and ExpiresAt replace those of the plan where the wave goes out later than planned; nil: they stand.
	DeadlineAt *time.Time `json:"deadline_at,omitempty"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
}

func (WaveReleased) EventType() string     { return "kanade.exec.wave-released.v1" }
func (p WaveReleased) AggregateID() string { return p.ExecID }

// WaveDispatched says that all commands of a wave, or of the part of it that was released, are stored.
type WaveDispatched struct {
	ExecID string `json:"exec_id"`
	Wave   int    `json:"wave"`
	From   int    `json:"from,omitempty"`
	To     int    `json:"to,omitempty"`
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

// ExecCorrected replaces the totals of an exec that has closed and not expired: an endpoint that was away has answered since,
// or one that was taken for stopped says otherwise. It gathers what has changed, at most once a minute, and changes no outcome.
type ExecCorrected struct {
	ExecID string `json:"exec_id"`
	Totals Totals `json:"totals"`
}

func (ExecCorrected) EventType() string     { return "kanade.exec.corrected.v1" }
func (p ExecCorrected) AggregateID() string { return p.ExecID }

// ExecHalted stops an exec whose failure budget is used up: nothing more of it goes out or starts, what runs goes on.
type ExecHalted struct {
	ExecID string `json:"exec_id"`
	// Failed is how many endpoints have failed, Allowed how many were allowed to.
	Failed  int    `json:"failed"`
	Allowed int    `json:"allowed"`
	Totals  Totals `json:"totals"`
}

func (ExecHalted) EventType() string     { return "kanade.exec.halted.v1" }
func (p ExecHalted) AggregateID() string { return p.ExecID }

// ExecCancelled is an operator's act: nothing more of the exec goes out or starts, what runs goes on.
type ExecCancelled struct {
	ExecID string `json:"exec_id"`
	Reason string `json:"reason,omitempty"`
}

func (ExecCancelled) EventType() string     { return "kanade.exec.cancelled.v1" }
func (p ExecCancelled) AggregateID() string { return p.ExecID }

// ExecKilled is an operator's act: nothing more of the exec goes out or starts, and what runs is killed.
type ExecKilled struct {
	ExecID string `json:"exec_id"`
	Reason string `json:"reason,omitempty"`
}

func (ExecKilled) EventType() string     { return "kanade.exec.killed.v1" }
func (p ExecKilled) AggregateID() string { return p.ExecID }

// ExecPaused is an operator's act: no further wave goes out until ExecResumed. What is out goes on.
type ExecPaused struct {
	ExecID string `json:"exec_id"`
	Reason string `json:"reason,omitempty"`
}

func (ExecPaused) EventType() string     { return "kanade.exec.paused.v1" }
func (p ExecPaused) AggregateID() string { return p.ExecID }

// ExecResumed is an operator's act: waves go out again, those whose time has come at once.
type ExecResumed struct {
	ExecID string `json:"exec_id"`
	Reason string `json:"reason,omitempty"`
}

func (ExecResumed) EventType() string     { return "kanade.exec.resumed.v1" }
func (p ExecResumed) AggregateID() string { return p.ExecID }

// WaveAdvanced is an operator's act: the wave goes out now, whatever it would have waited for.
type WaveAdvanced struct {
	ExecID string `json:"exec_id"`
	Wave   int    `json:"wave"`
	Reason string `json:"reason,omitempty"`
}

func (WaveAdvanced) EventType() string     { return "kanade.exec.wave-advanced.v1" }
func (p WaveAdvanced) AggregateID() string { return p.ExecID }

var (
	sampleRetry         = Retry{Max: 2, BackoffSecs: 30}
	sampleCount         = 2
	sampleExecRequested = ExecRequested{
		ExecID: "ed70b3bc-5ac5-4c70-a90d-b319c4557e8e", JobID: "hello", Version: "1.0.0", JobSequence: 7, JobHash: sampleDocument.Hash,
		Script: Script{Shell: "sh", Body: "echo hello\n", TimeoutSecs: 30, RunAs: "system", Cwd: "/tmp",
			Env: map[string]string{"COLOR": "red"}, Args: []string{"-v"}, Stdin: "yes\n", SuccessCodes: []int{0, 3010}, Staleness: "strict", MaxCacheAge: "5m"},
		Plan: json.RawMessage(`{"target":{"all":true}}`), ScheduleID: "nightly", Nominal: &sampleTime, DeadlineAt: &sampleTime,
		Retry: &sampleRetry, RetryOf: "0f0e1b57-96c1-4b5e-8a0c-1a6d0d7f8f11", Reason: "the server is back", Origin: "cli", IdempotencyKey: "k1", RequestHash: sampleDocument.Hash,
		TargetCount: &sampleCount,
	}
	sampleExecPlanned = ExecPlanned{
		ExecID:  sampleExecRequested.ExecID,
		Waves:   []PlannedWave{{DueAt: sampleTime, Label: "group canary", After: true, DelaySecs: 600, Pause: true, Expected: []string{"pc-01", "pc-02"}, Waiting: []string{"pc-03"}}},
		Skipped: []SkippedPC{{PCID: "pc-04", Reason: SkipReasonShell}}, Subjects: []string{"commands.all"},
		RequestID: "8b86c84d-8db9-4b0a-b0a9-6a5d7563750e", DeadlineAt: sampleTime, ExpiresAt: sampleTime,
		MaxFailures: &sampleCount, MaxParallel: &sampleCount,
	}
	sampleWaveReleased   = WaveReleased{ExecID: sampleExecRequested.ExecID, Wave: 0, From: 2, To: 4, ExecStreamSequence: 40, DeadlineAt: &sampleTime, ExpiresAt: &sampleTime}
	sampleWaveDispatched = WaveDispatched{ExecID: sampleExecRequested.ExecID, Wave: 0, From: 2, To: 4, Commands: 1, ExecStreamSequence: 41}
	sampleExecHalted     = ExecHalted{ExecID: sampleExecRequested.ExecID, Failed: 2, Allowed: 1, Totals: sampleTotals}
	sampleExecCancelled  = ExecCancelled{ExecID: sampleExecRequested.ExecID, Reason: "wrong group"}
	sampleExecKilled     = ExecKilled{ExecID: sampleExecRequested.ExecID, Reason: "fills the disk"}
	sampleExecPaused     = ExecPaused{ExecID: sampleExecRequested.ExecID, Reason: "lunch"}
	sampleExecResumed    = ExecResumed{ExecID: sampleExecRequested.ExecID, Reason: "back"}
	sampleWaveAdvanced   = WaveAdvanced{ExecID: sampleExecRequested.ExecID, Wave: 1, Reason: "looks good"}
	sampleExecClosed     = ExecClosed{ExecID: sampleExecRequested.ExecID, Outcome: OutcomePartial, Reason: ReasonNoTarget, Totals: sampleTotals}
	sampleExecCorrected  = ExecCorrected{ExecID: sampleExecRequested.ExecID, Totals: sampleTotals}
	sampleExecExpired    = ExecExpired{ExecID: sampleExecRequested.ExecID, Outcome: OutcomeExpired, Totals: sampleTotals}
)
