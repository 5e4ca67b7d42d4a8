package domain

import "kanade/libs/events"

// Script is whether the commands of a job may run: the newest fact of the aggregate.
type Script struct {
	Revoked bool
	// Seq is the LOG sequence of that fact: also what an append expects; 0 when there is none.
	Seq uint64
}

// RevokeScript decides what a revocation appends; nil when the job is revoked. The job need not exist.
func RevokeScript(cur Script, jobID, reason string) *events.ScriptRevoked {
	if cur.Revoked {
		return nil
	}
	return &events.ScriptRevoked{JobID: jobID, Reason: reason}
}

// UnrevokeScript decides what taking it back appends; nil when the job is not revoked.
func UnrevokeScript(cur Script, jobID, reason string) *events.ScriptUnrevoked {
	if !cur.Revoked {
		return nil
	}
	return &events.ScriptUnrevoked{JobID: jobID, Reason: reason}
}

// ReasonJobDeleted is the reason of the revocation that goes with a job's deletion.
const ReasonJobDeleted = "job deleted"

// RevokeDeleted decides the revocation that goes with the deletion of a job: the second of its two facts, which whoever
// repeats the request makes up for if it is missing. A job that was never there is not revoked, nor is one that has been
// stored again, and what an operator has said of it since then stands.
func RevokeDeleted(job Job, cur Script, jobID string) *events.ScriptRevoked {
	if job.Saved != nil || job.Seq == 0 || cur.Seq > job.Seq {
		return nil
	}
	return RevokeScript(cur, jobID, ReasonJobDeleted)
}
