package wire

import (
	"math"
	"time"

	"github.com/google/uuid"
)

// ExecResult is the end of one run on one endpoint, or the word that it was skipped. Subject results.<request_id>, from
// agents. It comes at least once, before or after its EventStarted.
type ExecResult struct {
	// ResultID is a UUID that the agent coins, one a run; empty from very old agents: see EffectiveResultID.
	ResultID string `json:"result_id" wire:"default"`
	// RequestID is the Command's; shared by all endpoints that heard the same message.
	RequestID string `json:"request_id"`
	// ExecID is empty for an ad-hoc run. One that nobody here sent is normal: agents run schedules of their own.
	ExecID string `json:"exec_id,omitzero"`
	PCID   string `json:"pc_id"`
	// ExitCode is the script's, or a reserved one: see Skip and Ended. 32 bits, signed.
	ExitCode int `json:"exit_code"`
	// Stdout and Stderr are the output, up to 256 KiB each; beyond that empty, with the object named.
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// StartedAt and FinishedAt are the agent's clock; equal in a skip.
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	// StdoutObject and StderrObject are keys in the object store result_output.
	StdoutObject string `json:"stdout_object,omitzero"`
	StderrObject string `json:"stderr_object,omitzero"`
	// ManifestID is the job's id.
	ManifestID string `json:"manifest_id,omitzero"`
}

// DecodeExecResult reads an ExecResult. Errors wrap *FieldError.
func DecodeExecResult(data []byte) (ExecResult, error) {
	return decode[ExecResult]("exec result", data)
}

// UnmarshalJSON is DecodeExecResult.
func (r *ExecResult) UnmarshalJSON(data []byte) (err error) {
	*r, err = DecodeExecResult(data)
	return err
}

// MarshalJSON writes the wire's form.
func (r ExecResult) MarshalJSON() ([]byte, error) { return encode(r) }

func (r *ExecResult) check() error {
	if r.ExitCode < math.MinInt32 || r.ExitCode > math.MaxInt32 {
		return &FieldError{"exit_code", "does not fit 32 bits"}
	}
	return nil
}

// EffectiveResultID is the id of the run: the agent's, or what stands for it where there is none.
func (r *ExecResult) EffectiveResultID() string {
	if r.ResultID != "" {
		return r.ResultID
	}
	return LegacyResultID(r.RequestID, r.PCID)
}

// LegacyResultID is the result id of a run whose agent gave none, the same that kanade 0.43.45 derives: redeliveries
// meet, and endpoints that share a request do not.
func LegacyResultID(requestID, pcID string) string {
	name := "kanade-issue-19/legacy-result-id:" + requestID + ":" + pcID
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String()
}
