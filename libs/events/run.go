package events

import (
	"fmt"
	"time"
)

// Run names one run of one command on one endpoint: what every run fact bears.
type Run struct {
	PCID      string `json:"pc_id"`
	ExecID    string `json:"exec_id"`
	RequestID string `json:"request_id"`
	// ResultID is the run's own id, derived from request and endpoint.
	ResultID string `json:"result_id"`
	JobID    string `json:"job_id"`
	Version  string `json:"version"`
}

// AggregateID of a run fact is the endpoint.
func (r Run) AggregateID() string { return r.PCID }

// ResultID of the run of a request on an endpoint: the same however often the command is heard.
func ResultID(requestID, pcID string) string { return DeriveID(requestID, "result", pcID) }

// MaxInlineOutput is how much of each output stream an event carries, in bytes: half from the head, half from the
// tail.
const MaxInlineOutput = 32 << 10

// MaxObjectOutput is how much of each output stream is kept as an object, in bytes, head and tail alike.
const MaxObjectOutput = 8 << 20

// Output is one output stream of a run.
type Output struct {
	// Text is the stream, or its head and tail with the cut marked when Truncated.
	Text string `json:"text"`
	// Bytes is the whole length of what the script wrote.
	Bytes     int64 `json:"bytes"`
	Truncated bool  `json:"truncated,omitempty"`
	// SHA256 of what was kept, lower-case hex; empty when the text is the whole.
	SHA256 string `json:"sha256,omitempty"`
	// Object in the store result_output holds what the text leaves out; empty when the text is the whole.
	Object string `json:"object,omitempty"`
}

// RunReceived says that the endpoint has the command in its ledger.
type RunReceived struct {
	Run
	ReceivedAt time.Time `json:"received_at"`
}

func (RunReceived) EventType() string { return "kanade.run.received.v1" }

// RunStarted says that the script is about to start.
type RunStarted struct {
	Run
	StartedAt time.Time `json:"started_at"`
}

func (RunStarted) EventType() string { return "kanade.run.started.v1" }

// RunFinished is the end of a run.
type RunFinished struct {
	Run
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	// State is succeeded, failed, timed_out, killed or unknown.
	State TargetState `json:"state"`
	// ExitCode is the script's; nil when it did not end by itself.
	ExitCode *int `json:"exit_code,omitempty"`
	// Reason says in words why a run that did not end by itself ended, or is ReasonNotStarted.
	Reason string `json:"reason,omitempty"`
	// Detail says ReasonNotStarted in words.
	Detail string `json:"detail,omitempty"`
	Stdout Output `json:"stdout"`
	Stderr Output `json:"stderr"`
}

func (RunFinished) EventType() string { return "kanade.run.finished.v1" }

// ReasonNotStarted is the reason of a failed run of which nothing has run: the endpoint was about to start the script and
// could not, in none of its attempts (no such working directory, no room for the script). It is a failure and no skip,
// so that budgets count it.
const ReasonNotStarted = "not_started"

// Reasons for which an endpoint does not run a command. The first four are the wire's exit codes 124 to 127.
const (
	SkipReasonVersion  = "version_pin"
	SkipReasonDeadline = "deadline_passed"
	SkipReasonRevoked  = "revoked"
	SkipReasonStale    = "stale"
	// SkipReasonStopped: the exec was killed, cancelled or halted, or has expired, before the script began.
	SkipReasonStopped = "exec_stopped"
	// The exec was killed, cancelled or halted before the endpoint had started it. The endpoint's own word replaces it.
	SkipReasonKilled    = "exec_killed"
	SkipReasonCancelled = "exec_cancelled"
	SkipReasonHalted    = "exec_halted"
	// SkipReasonScriptObject: the script object is missing or is not what the command says.
	SkipReasonScriptObject = "script_object"
)

// RunSkipped says that the endpoint does not run the command.
type RunSkipped struct {
	Run
	SkippedAt time.Time `json:"skipped_at"`
	// Code is the wire's exit code of the reason (124 to 127), 0 when it has none.
	Code   int    `json:"code,omitempty"`
	Reason string `json:"reason"`
	// Detail says it in words.
	Detail string `json:"detail,omitempty"`
}

func (RunSkipped) EventType() string { return "kanade.run.skipped.v1" }

// RunKind is which of the facts of a run it is.
type RunKind string

// The kinds.
const (
	RunKindReceived RunKind = "received"
	RunKindStarted  RunKind = "started"
	RunKindFinished RunKind = "finished"
	RunKindSkipped  RunKind = "skipped"
)

// RunFact is a fact of a run in one form, whether our agent said it or an old one.
type RunFact struct {
	Run
	Kind RunKind
	// At is when it happened by the endpoint's clock.
	At time.Time
	// StartedAt and FinishedAt are zero where the fact does not say.
	StartedAt, FinishedAt time.Time
	// State is the final state of a finished run.
	State TargetState
	// Code is the exit code where there is one, a skip's included.
	Code           *int
	Reason, Detail string
	Stdout, Stderr Output
}

// TargetState is the state that this fact means for the endpoint.
func (f RunFact) TargetState() TargetState {
	switch f.Kind {
	case RunKindReceived:
		return StateReceived
	case RunKindStarted:
		return StateRunning
	case RunKindSkipped:
		return StateSkipped
	default:
		return f.State
	}
}

// RunFactOf reads an event as a run fact; ok is false for facts of another kind. Errors are *DecodeError.
func RunFactOf(e Event) (f RunFact, ok bool, err error) {
	switch {
	case e.Type == TypeWireStarted:
		f, err = startedFact(e.Data)
	case e.Type == TypeWireResult:
		f, err = resultFact(e.Data)
	case e.Aggregate() == AggregateRun:
		f, err = ownFact(e)
	default:
		return RunFact{}, false, nil
	}
	if err != nil {
		return RunFact{}, false, &DecodeError{RawSubject: e.Subject, Type: e.Type, Err: err}
	}
	return f, true, nil
}

func ownFact(e Event) (RunFact, error) {
	p, err := e.Payload()
	if err != nil {
		return RunFact{}, err
	}
	switch p := p.(type) {
	case RunReceived:
		return RunFact{Run: p.Run, Kind: RunKindReceived, At: p.ReceivedAt}, nil
	case RunStarted:
		return RunFact{Run: p.Run, Kind: RunKindStarted, At: p.StartedAt, StartedAt: p.StartedAt}, nil
	case RunSkipped:
		f := RunFact{Run: p.Run, Kind: RunKindSkipped, At: p.SkippedAt, Reason: p.Reason, Detail: p.Detail}
		f.StartedAt, f.FinishedAt = p.SkippedAt, p.SkippedAt
		if p.Code != 0 {
			f.Code = &p.Code
		}
		return f, nil
	case RunFinished:
		if !p.State.Final() {
			return RunFact{}, fmt.Errorf("state %q does not end a run", p.State)
		}
		return RunFact{
			Run: p.Run, Kind: RunKindFinished, At: p.FinishedAt, StartedAt: p.StartedAt, FinishedAt: p.FinishedAt,
			State: p.State, Code: p.ExitCode, Reason: p.Reason, Detail: p.Detail, Stdout: p.Stdout, Stderr: p.Stderr,
		}, nil
	default:
		return RunFact{}, fmt.Errorf("type %s is no run fact", e.Type)
	}
}

var (
	sampleRun = Run{
		PCID: "pc-01", ExecID: sampleExecRequested.ExecID, RequestID: "8b86c84d-8db9-4b0a-b0a9-6a5d7563750e",
		ResultID: "c5662cd4-eb5d-4f21-99b3-bfc75d57d30c", JobID: "hello", Version: "1.0.0",
	}
	sampleExitCode    = 3
	sampleOutput      = Output{Text: "hello\n", Bytes: 40000, Truncated: true, SHA256: sampleDocument.Hash, Object: sampleRun.ResultID + "/stdout"}
	sampleRunReceived = RunReceived{Run: sampleRun, ReceivedAt: sampleTime}
	sampleRunStarted  = RunStarted{Run: sampleRun, StartedAt: sampleTime}
	sampleRunFinished = RunFinished{
		Run: sampleRun, StartedAt: sampleTime, FinishedAt: sampleTime, State: StateFailed, ExitCode: &sampleExitCode,
		Reason: "exit code 3", Detail: "it can't write", Stdout: sampleOutput, Stderr: sampleOutput,
	}
	sampleRunSkipped = RunSkipped{Run: sampleRun, SkippedAt: sampleTime, Code: 124, Reason: SkipReasonVersion, Detail: "1.0.1 is current"}
)
