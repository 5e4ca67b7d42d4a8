package events

import "encoding/json"

// JobSaved stores a job's manifest.
type JobSaved struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	DocumentRevision
}

func (JobSaved) EventType() string     { return "kanade.job.saved.v1" }
func (p JobSaved) AggregateID() string { return p.ID }

// JobDeleted removes a job.
type JobDeleted struct {
	ID string `json:"id"`
}

func (JobDeleted) EventType() string     { return "kanade.job.deleted.v1" }
func (p JobDeleted) AggregateID() string { return p.ID }

var (
	sampleDocument = DocumentRevision{
		Document: json.RawMessage(`{"id":"hello","version":"1.0.0"}`), Source: "id: hello\nversion: 1.0.0\n", SourceType: "yaml",
		Hash: "d2b4f8f6a0f3b9d6b8a9f1a3c1f7e5d4c3b2a1908f7e6d5c4b3a291807f6e5d4",
	}
	sampleJobSaved   = JobSaved{ID: "hello", Version: "1.0.0", DocumentRevision: sampleDocument}
	sampleJobDeleted = JobDeleted{ID: "hello"}
)
