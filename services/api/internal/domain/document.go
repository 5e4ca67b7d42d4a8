package domain

import "kanade/libs/events"

// Current is a job's, schedule's or calendar's document as the log has it.
type Current[P events.Payload] struct {
	// Saved is the fact that stored the document; nil when there is none, or none any more.
	Saved *P
	// Seq is the LOG sequence of the fact that saved or deleted it; 0 when it never was.
	Seq uint64
	// Last is the last sequence of the whole aggregate: what an append expects.
	Last uint64
}

// The kinds of documents; the freeze of the fleet is one.
type (
	Job      = Current[events.JobSaved]
	Schedule = Current[events.ScheduleSaved]
	Calendar = Current[events.CalendarSaved]
	Freeze   = Current[events.FreezeSaved]
)

// same tells whether a save would store what is stored already: the same document from the same text.
func same(a, b events.DocumentRevision) bool {
	return a.Hash == b.Hash && a.Source == b.Source && a.SourceType == b.SourceType
}
