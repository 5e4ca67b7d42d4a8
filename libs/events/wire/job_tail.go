package wire

// JobTailRequest asks an agent for the live output of a run. Subject job.tail.<pc_id>, to agents.
type JobTailRequest struct {
	ResultID string `json:"result_id"`
}

// JobTailReply is the last 128 KiB of each stream of a run, from its start to 60 s after its end. The reply to
// JobTailRequest, from agents.
type JobTailReply struct {
	// Found is false for a run that the agent does not know (any more).
	Found   bool   `json:"found"`
	Running bool   `json:"running"`
	Stdout  string `json:"stdout"`
	Stderr  string `json:"stderr"`
	// StdoutTruncated and StderrTruncated say that earlier output is left out.
	StdoutTruncated bool `json:"stdout_truncated"`
	StderrTruncated bool `json:"stderr_truncated"`
}

// DecodeJobTailRequest reads a JobTailRequest. Errors wrap *FieldError.
func DecodeJobTailRequest(data []byte) (JobTailRequest, error) {
	return decode[JobTailRequest]("job tail request", data)
}

// UnmarshalJSON is DecodeJobTailRequest.
func (r *JobTailRequest) UnmarshalJSON(data []byte) (err error) {
	*r, err = DecodeJobTailRequest(data)
	return err
}

// DecodeJobTailReply reads a JobTailReply. Errors wrap *FieldError.
func DecodeJobTailReply(data []byte) (JobTailReply, error) {
	return decode[JobTailReply]("job tail reply", data)
}

// UnmarshalJSON is DecodeJobTailReply.
func (r *JobTailReply) UnmarshalJSON(data []byte) (err error) {
	*r, err = DecodeJobTailReply(data)
	return err
}
