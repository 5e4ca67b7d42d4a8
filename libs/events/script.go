package events

// ScriptRevoked is an operator's act: commands of the job that have not started yet are skipped (wire code 126), on
// every endpoint, until ScriptUnrevoked. Its id is the job's.
type ScriptRevoked struct {
	JobID  string `json:"job_id"`
	Reason string `json:"reason,omitempty"`
}

func (ScriptRevoked) EventType() string     { return "kanade.script.revoked.v1" }
func (p ScriptRevoked) AggregateID() string { return p.JobID }

// ScriptUnrevoked takes a revocation back.
type ScriptUnrevoked struct {
	JobID  string `json:"job_id"`
	Reason string `json:"reason,omitempty"`
}

func (ScriptUnrevoked) EventType() string     { return "kanade.script.unrevoked.v1" }
func (p ScriptUnrevoked) AggregateID() string { return p.JobID }

var (
	sampleScriptRevoked   = ScriptRevoked{JobID: "hello", Reason: "deletes too much"}
	sampleScriptUnrevoked = ScriptUnrevoked{JobID: "hello", Reason: "mended"}
)
