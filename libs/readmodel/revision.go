package readmodel

import (
	"time"

	"kanade/libs/events"
)

// Revision is the current document of a job, a schedule or a calendar, as the fact that saved it has it.
type Revision struct {
	// Document is JSON, byte for byte as stored; libs/catalog reads it.
	Document string
	// Source is the text as it was sent, and SourceType "yaml" or "json".
	Source, SourceType string
	// Hash is the SHA-256 of Document in lower-case hex.
	Hash string
	// Sequence is the LOG sequence of the fact, SavedAt its time by the broker's clock, Actor who did it.
	Sequence uint64
	SavedAt  time.Time
	Actor    events.Actor
}

func revisionOf(d events.DocumentRevision, f *fact) Revision {
	return Revision{
		Document: string(d.Document), Source: d.Source, SourceType: d.SourceType, Hash: d.Hash,
		Sequence: f.seq, SavedAt: f.event.Time, Actor: f.event.Actor,
	}
}

// withRevision are the columns of a table that ends with a revision.
func withRevision(columns ...string) []string {
	return append(columns, "document TEXT", "source TEXT", "source_type TEXT", "hash TEXT", "sequence INTEGER", "saved_at INTEGER", "actor TEXT")
}

// fields are those of a row that ends with the revision.
func (r *Revision) fields(before ...any) []any {
	return append(before, &r.Document, &r.Source, &r.SourceType, &r.Hash, sequence{&r.Sequence}, nanos{&r.SavedAt}, &r.Actor)
}
