package client

import (
	"encoding/json"
	"time"
)

// What tables show of the API's documents; --json prints the documents themselves.

// Job is a row of GET /api/jobs.
type Job struct {
	ID          string `json:"id"`
	Version     string `json:"version"`
	Description string `json:"description"`
	Execute     struct {
		Shell   string `json:"shell"`
		Timeout string `json:"timeout"`
	} `json:"execute"`
	Live struct {
		Running int `json:"running"`
		Pending int `json:"pending"`
	} `json:"live"`
}

// Requested answers POST /api/exec/{job_id}.
type Requested struct {
	ExecID  string `json:"exec_id"`
	JobID   string `json:"job_id"`
	Version string `json:"version"`
	// TargetCount is how many endpoints it asks for; with Uncounted the named ones alone, since nobody could count the others.
	TargetCount int  `json:"target_count"`
	Uncounted   bool `json:"uncounted"`
	// RetryOf is the exec whose endpoints this one tries again; empty otherwise.
	RetryOf  string `json:"retry_of"`
	Sequence uint64 `json:"sequence"`
}

// DryRun answers POST /api/exec/{job_id}?dry_run=true.
type DryRun struct {
	JobID   string `json:"job_id"`
	Version string `json:"version"`
	// Revoked: every endpoint would skip it.
	Revoked bool `json:"revoked"`
	// Command is what each command says; nil where none goes out.
	Command *DryCommand `json:"command"`
	// TargetCount is how many endpoints it asks for, those that are left out among them.
	TargetCount int        `json:"target_count"`
	Waves       []DryWave  `json:"waves"`
	Skipped     []Skipped  `json:"skipped"`
	DeadlineAt  *time.Time `json:"deadline_at"`
	ExpiresAt   *time.Time `json:"expires_at"`
	// MaxFailures and MaxParallel are endpoints; nil: no limit.
	MaxFailures *int `json:"max_failures"`
	MaxParallel *int `json:"max_parallel"`
}

// DryCommand is what each command of an exec says. The script is Script, or an object with the digest of its bytes.
type DryCommand struct {
	Shell        string            `json:"shell"`
	Script       string            `json:"script"`
	ScriptObject string            `json:"script_object"`
	ScriptSHA256 string            `json:"script_object_sha256"`
	TimeoutSecs  uint64            `json:"timeout_secs"`
	JitterSecs   uint64            `json:"jitter_secs"`
	RunAs        string            `json:"run_as"`
	CWD          string            `json:"cwd"`
	Env          map[string]string `json:"env"`
	Args         []string          `json:"args"`
	Stdin        string            `json:"stdin"`
	SuccessCodes []int             `json:"success_codes"`
	Retry        *struct {
		Max         int    `json:"max"`
		BackoffSecs uint64 `json:"backoff_secs"`
	} `json:"retry"`
	Staleness struct {
		Mode        string `json:"mode"`
		MaxCacheAge string `json:"max_cache_age"`
	} `json:"staleness"`
}

// DryWave is a wave as a dry run plans it.
type DryWave struct {
	Timing
	Expected []string `json:"expected"`
	Waiting  []string `json:"waiting"`
	Subjects []string `json:"subjects"`
}

// Skipped is an endpoint that a plan leaves out, and why.
type Skipped struct {
	PCID   string `json:"pc_id"`
	Reason string `json:"reason"`
}

// Timing says which wave, and what it waits for: with Pause an operator, with After the end of the wave before and then
// DelaySecs, else DueAt.
type Timing struct {
	// Wave counts from 0.
	Wave int `json:"wave"`
	// Label is how the rollout names it; empty without a rollout.
	Label     string     `json:"label"`
	DueAt     *time.Time `json:"due_at"`
	After     bool       `json:"after"`
	DelaySecs uint64     `json:"delay_secs"`
	Pause     bool       `json:"pause"`
}

// Wave is a row of GET /api/executions/{id}/waves.
type Wave struct {
	Timing
	// State is pending, paused, releasing, sent, done or stopped.
	State        string     `json:"state"`
	ReleasedAt   *time.Time `json:"released_at"`
	DispatchedAt *time.Time `json:"dispatched_at"`
	// Size counts the wave's endpoints, Released those that may have their command, Dispatched those whose command is out.
	Size       int    `json:"size"`
	Released   int    `json:"released"`
	Dispatched int    `json:"dispatched"`
	Totals     Totals `json:"totals"`
}

// Failure is a row of GET /api/executions/{id}/failures: runs that failed in the same way.
type Failure struct {
	State    string   `json:"state"`
	ExitCode *int     `json:"exit_code"`
	Reason   string   `json:"reason"`
	Stdout   string   `json:"stdout"`
	Stderr   string   `json:"stderr"`
	Count    int      `json:"count"`
	PCs      []string `json:"pcs"`
}

// Explanation answers GET /api/executions/{id}/targets/{pc}/explain.
type Explanation struct {
	State   string `json:"state"`
	Reason  string `json:"reason"`
	Summary string `json:"summary"`
	Steps   []Step `json:"steps"`
}

// Step is a fact that matters to an endpoint, with its sentence.
type Step struct {
	Sequence uint64     `json:"sequence"`
	At       *time.Time `json:"at"`
	Fact     string     `json:"fact"`
	Text     string     `json:"text"`
}

// Stopped answers POST /api/executions/{id}/{kill,cancel,pause,resume}: the exec as it is now, as far as the API knows it.
type Stopped struct {
	ExecID   string  `json:"exec_id"`
	Sequence uint64  `json:"sequence"`
	Status   string  `json:"status"`
	Outcome  string  `json:"outcome"`
	Totals   *Totals `json:"totals"`
	// Of a kill: whom it found with the command in hand (some of them by name), and how many had not got so far. Nil: the
	// API could not say.
	Running    []string `json:"running"`
	RunningAll *int     `json:"running_count"`
	NotStarted *int     `json:"not_started_count"`
}

// Freeze answers GET and PUT /api/freeze.
type Freeze struct {
	From   string `json:"from,omitempty"`
	Until  string `json:"until,omitempty"`
	Reason string `json:"reason,omitempty"`
	TZ     string `json:"tz"`
}

// Calendar is a row of GET /api/calendars.
type Calendar struct {
	ID          string   `json:"id"`
	Kind        string   `json:"kind"`
	Days        []string `json:"days"`
	Description string   `json:"description"`
}

// Object is a row of GET /api/script-objects.
type Object struct {
	Name     string     `json:"name"`
	Version  string     `json:"version"`
	Size     uint64     `json:"size"`
	Digest   string     `json:"digest"`
	Modified *time.Time `json:"modified"`
}

// Execution is a row of GET /api/executions.
type Execution struct {
	ExecID       string     `json:"exec_id"`
	JobID        string     `json:"job_id"`
	Version      string     `json:"version"`
	InitiatedBy  string     `json:"initiated_by"`
	InitiatedAt  *time.Time `json:"initiated_at"`
	TargetCount  int        `json:"target_count"`
	SuccessCount int        `json:"success_count"`
	FailureCount int        `json:"failure_count"`
	SkipCount    int        `json:"skip_count"`
	Status       string     `json:"status"`
	// Outcome is empty until the exec has ended.
	Outcome    string     `json:"outcome"`
	Reason     string     `json:"reason"`
	Totals     Totals     `json:"totals"`
	Actor      string     `json:"actor"`
	ScheduleID string     `json:"schedule_id"`
	Nominal    *time.Time `json:"nominal"`
	Sequence   uint64     `json:"sequence"`
	ExpiresAt  *time.Time `json:"expires_at"`
	// Waves is how many there are, Released how many of them are out at least in part.
	Waves    int   `json:"waves"`
	Released int   `json:"released"`
	Paused   bool  `json:"paused"`
	Stopped  *Stop `json:"stopped"`
	// RetryOf is the exec whose endpoints this one tries again; empty otherwise.
	RetryOf string `json:"retry_of"`
	// EndedSequence is that of the fact that ended it; 0 while it goes on.
	EndedSequence uint64 `json:"ended_sequence"`
	// Forgotten: its waves, targets and results are older than the history and no more.
	Forgotten bool `json:"forgotten"`
	// Budget is that of its plan; nil before the plan, in lists, and where the API can't read it.
	Budget *Budget `json:"budget"`
}

// Budget is how many endpoints may fail, and be at work at once; nil: no limit.
type Budget struct {
	MaxFailures *int `json:"max_failures"`
	MaxParallel *int `json:"max_parallel"`
}

// Stop says who stopped an exec.
type Stop struct {
	// By is killed, cancelled or halted.
	By       string     `json:"by"`
	Actor    string     `json:"actor"`
	Reason   string     `json:"reason"`
	At       *time.Time `json:"at"`
	Sequence uint64     `json:"sequence"`
}

// Totals counts endpoints by state: those that the outcome waits for, and the others.
type Totals struct {
	Expected map[string]int `json:"expected"`
	Others   map[string]int `json:"others"`
}

// Target is a row of GET /api/executions/{id}/targets.
type Target struct {
	PCID     string     `json:"pc_id"`
	Expected bool       `json:"expected"`
	Wave     int        `json:"wave"`
	State    string     `json:"state"`
	Code     *int       `json:"code"`
	Reason   string     `json:"reason"`
	At       *time.Time `json:"at"`
	ResultID string     `json:"result_id"`
	// Late: it said so after the exec had ended.
	Late bool `json:"late"`
}

// Result is a row of GET /api/results.
type Result struct {
	ResultID   string     `json:"result_id"`
	ExecID     string     `json:"exec_id"`
	PCID       string     `json:"pc_id"`
	JobID      string     `json:"job_id"`
	Version    string     `json:"version"`
	ExitCode   *int       `json:"exit_code"`
	State      string     `json:"state"`
	Reason     string     `json:"reason"`
	Stdout     string     `json:"stdout"`
	Stderr     string     `json:"stderr"`
	StartedAt  *time.Time `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at"`
	// StdoutBytes and StderrBytes are what the script wrote; a text that is truncated has its head and tail.
	StdoutBytes     int64 `json:"stdout_bytes"`
	StderrBytes     int64 `json:"stderr_bytes"`
	StdoutTruncated bool  `json:"stdout_truncated"`
	StderrTruncated bool  `json:"stderr_truncated"`
	// StdoutObject and StderrObject name what is kept of an output whose text is truncated; empty where nothing more is.
	StdoutObject string `json:"stdout_object"`
	StderrObject string `json:"stderr_object"`
}

// ResultGroup is results that are equal in what they said and how they ended.
type ResultGroup struct {
	Digest   string   `json:"digest"`
	Count    int      `json:"count"`
	State    string   `json:"state"`
	ExitCode *int     `json:"exit_code"`
	Reason   string   `json:"reason"`
	Stdout   string   `json:"stdout"`
	Stderr   string   `json:"stderr"`
	PCs      []string `json:"pcs"`
	ResultID string   `json:"result_id"`
}

// Took is how long the run lasted; ok is false while it has not ended.
func (r Result) Took() (d time.Duration, ok bool) {
	if r.StartedAt == nil || r.FinishedAt == nil {
		return 0, false
	}
	return r.FinishedAt.Sub(*r.StartedAt), true
}

// Agent is a row of GET /api/agents.
type Agent struct {
	PCID          string     `json:"pc_id"`
	Hostname      string     `json:"hostname"`
	OSFamily      string     `json:"os_family"`
	AgentVersion  string     `json:"agent_version"`
	LastHeartbeat *time.Time `json:"last_heartbeat"`
	Alive         bool       `json:"alive"`
	Groups        []string   `json:"groups"`
}

// Group is a row of GET /api/groups.
type Group struct {
	Name    string   `json:"name"`
	Members []string `json:"members"`
}

// Tick is a row of GET /api/schedules/{id}/ticks.
type Tick struct {
	Nominal  time.Time  `json:"nominal"`
	To       *time.Time `json:"to"`
	Count    int        `json:"count"`
	Outcome  string     `json:"outcome"`
	Reason   string     `json:"reason"`
	ExecID   string     `json:"exec_id"`
	Sequence uint64     `json:"sequence"`
}

// Due is a row of GET /api/schedules/{id}/preview, or with ScheduleID and JobID of GET /api/schedules/upcoming.
type Due struct {
	ScheduleID string `json:"schedule_id"`
	JobID      string `json:"job_id"`
	// At is zero where nobody can say when.
	At    time.Time `json:"at"`
	Local string    `json:"local"`
	Zone  string    `json:"zone"`
	// Outcome is fired or skipped, Reason that of a skip.
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	// Endpoints counts those of a cadence that are due then; PCs are the first of them.
	Endpoints int      `json:"endpoints"`
	PCs       []string `json:"pcs"`
	Notes     []string `json:"notes"`
	Note      string   `json:"note"`
}

// Simulation answers POST /api/schedules/simulate.
type Simulation struct {
	ScheduleID string   `json:"schedule_id"`
	Fired      int      `json:"fired"`
	Skipped    int      `json:"skipped"`
	More       bool     `json:"more"`
	Ticks      []Due    `json:"ticks"`
	Notes      []string `json:"notes"`
	// Stored is the difference to the stored schedule of that id; nil where there is none.
	Stored *struct {
		Added   []time.Time `json:"added"`
		Removed []time.Time `json:"removed"`
	} `json:"stored"`
}

// ScheduleStatus answers GET /api/schedules/{id}/status.
type ScheduleStatus struct {
	ID          string      `json:"id"`
	JobID       string      `json:"job_id"`
	When        string      `json:"when"`
	Zone        string      `json:"zone"`
	Enabled     bool        `json:"enabled"`
	HeldBy      string      `json:"held_by"`
	Overdue     *time.Time  `json:"overdue"`
	LastTick    *Tick       `json:"last_tick"`
	LastFired   *Tick       `json:"last_fired"`
	Next        *Due        `json:"next"`
	Open        []Execution `json:"open"`
	LastSuccess *time.Time  `json:"last_success"`
	// FailingCount counts all, Failing has the worst of them; an empty id is the whole target.
	FailingCount int `json:"failing_count"`
	Failing      []struct {
		PCID      string     `json:"pc_id"`
		Failures  int        `json:"failures"`
		NotBefore *time.Time `json:"not_before"`
		Succeeded *time.Time `json:"succeeded"`
	} `json:"failing"`
}

// Coverage answers GET /api/schedules/{id}/coverage.
type Coverage struct {
	ScheduleID string `json:"schedule_id"`
	// Basis is memory, exec (ExecID), none or agent.
	Basis     string         `json:"basis"`
	ExecID    string         `json:"exec_id"`
	Total     int            `json:"total"`
	Counts    map[string]int `json:"counts"`
	Forgotten bool           `json:"forgotten"`
	PCs       []struct {
		PCID      string     `json:"pc_id"`
		State     string     `json:"state"`
		Reason    string     `json:"reason"`
		Fired     *time.Time `json:"fired"`
		Succeeded *time.Time `json:"succeeded"`
		Failures  int        `json:"failures"`
		NotBefore *time.Time `json:"not_before"`
	} `json:"pcs"`
}

// Backfill answers POST /api/schedules/{id}/backfill.
type Backfill struct {
	DryRun    bool `json:"dry_run"`
	Requested int  `json:"requested"`
	Known     int  `json:"known"`
	Held      int  `json:"held"`
	Ticks     []struct {
		Nominal time.Time `json:"nominal"`
		// Outcome is requested, known or held, Reason that of the last.
		Outcome string `json:"outcome"`
		Reason  string `json:"reason"`
		ExecID  string `json:"exec_id"`
	} `json:"ticks"`
}

// Act is a row of GET /api/audit.
type Act struct {
	Actor      string          `json:"actor"`
	Sub        string          `json:"sub"`
	Action     string          `json:"action"`
	Target     string          `json:"target"`
	Payload    json.RawMessage `json:"payload"`
	OccurredAt *time.Time      `json:"occurred_at"`
	Sequence   uint64          `json:"sequence"`
}

// Letter is a row of GET /api/dead; of GET /api/dead/{seq} with Headers, Body and Encoding.
type Letter struct {
	// Sequence is its place in DEAD, Stream and StreamSequence that of the message.
	Sequence       uint64    `json:"sequence"`
	ParkedAt       time.Time `json:"parked_at"`
	Handler        string    `json:"handler"`
	Reason         string    `json:"reason"`
	Stream         string    `json:"stream"`
	StreamSequence uint64    `json:"stream_sequence"`
	Subject        string    `json:"subject"`
	// Size of the body in bytes; nil where it was too large to be kept.
	Size      *int       `json:"size"`
	RetriedAt *time.Time `json:"retried_at"`
	RetriedBy string     `json:"retried_by"`
	// RetryRefused is why a retry is refused; empty where it is not.
	RetryRefused string            `json:"retry_refused"`
	Headers      map[string]string `json:"headers"`
	// Body is nil where it was too large to be kept and has gone. Encoding is text or base64.
	Body     *string `json:"body"`
	Encoding string  `json:"encoding"`
}

// Retried answers POST /api/dead/{seq}/retry.
type Retried struct {
	DeadSequence uint64 `json:"dead_sequence"`
	// Sequence is where in LOG the message is.
	Sequence uint64 `json:"sequence"`
	// Again: it had been retried before.
	Again bool `json:"again"`
}

// ReadModel is what the API says of the copies of the read model.
type ReadModel struct {
	Schema string `json:"schema"`
	Copies []Copy `json:"copies"`
}

// Copy is one of them.
type Copy struct {
	Slot      string    `json:"slot"`
	File      string    `json:"file"`
	Served    bool      `json:"served"`
	Asked     bool      `json:"asked"`
	Sequence  uint64    `json:"sequence"`
	AppliedAt time.Time `json:"applied_at"`
}

// Checked is what one projector found when it held its copy against the log.
type Checked struct {
	Host        string         `json:"host"`
	Slot        string         `json:"slot"`
	Sequence    uint64         `json:"sequence"`
	Differing   map[string]int `json:"differing"`
	Differences []string       `json:"differences"`
	Rebuilt     bool           `json:"rebuilt"`
	Error       string         `json:"error"`
}
