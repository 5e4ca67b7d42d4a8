package client

import "time"

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
	ExecID      string `json:"exec_id"`
	JobID       string `json:"job_id"`
	Version     string `json:"version"`
	TargetCount int    `json:"target_count"`
	Sequence    uint64 `json:"sequence"`
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
	Sequence   uint64     `json:"sequence"`
	ExpiresAt  *time.Time `json:"expires_at"`
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
	State    string     `json:"state"`
	Code     *int       `json:"code"`
	Reason   string     `json:"reason"`
	At       *time.Time `json:"at"`
	ResultID string     `json:"result_id"`
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
	// StdoutObject and StderrObject name the whole output where the text is only its head and tail.
	StdoutObject string `json:"stdout_object"`
	StderrObject string `json:"stderr_object"`
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
	FirstSeenAt   *time.Time `json:"first_seen_at"`
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

// Due is a row of GET /api/schedules/{id}/preview.
type Due struct {
	At    time.Time `json:"at"`
	Local string    `json:"local"`
	Note  string    `json:"note"`
}
