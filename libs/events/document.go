package events

import "encoding/json"

// DocumentRevision is how jobs and schedules are stored. The bytes of Document are what Hash was computed over; it is never
// computed again from another form.
type DocumentRevision struct {
	// Document is the parsed text as JSON, defaults filled in, in a fixed order of fields. libs/catalog reads it.
	Document json.RawMessage `json:"document"`
	// Source is the text as it was sent, comments kept.
	Source string `json:"source"`
	// SourceType is "yaml" or "json".
	SourceType string `json:"source_type"`
	// Hash is the SHA-256 of Document in lower-case hex: the revision's name.
	Hash string `json:"hash"`
}
