package domain

import (
	"time"

	"kanade/libs/events"
)

// EntryState is how far a command has come on this endpoint. It only moves forward.
type EntryState string

// The states. Whatever is found Started when the agent starts had lost its agent while it ran.
const (
	EntryReceived EntryState = "received"
	EntryStarted  EntryState = "started"
	EntryDone     EntryState = "done"
)

// Entry is one command in the ledger.
type Entry struct {
	Run   events.Run `json:"run"`
	State EntryState `json:"state"`
	// Command is dropped when the entry is done: from then on the entry only keeps the command from running again.
	Command *Command `json:"command,omitempty"`
	// TraceParent is the W3C trace context the command came with: every fact of the run goes on in it. Empty without.
	TraceParent string    `json:"traceparent,omitempty"`
	ReceivedAt  time.Time `json:"received_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	// KeepUntil is when the entry may be forgotten: no copy of the command can arrive any more.
	KeepUntil time.Time `json:"keep_until"`
}

// keepEntries is how long an entry outlives its command: twice the seven days for which EXEC keeps one, so that the
// ledger remembers whatever can still be heard, with as much again for clocks that are wrong.
const keepEntries = 14 * 24 * time.Hour

// NewEntry is the entry of a command heard now, in a trace context or none.
func NewEntry(c Command, traceParent, pcID string, now time.Time) Entry {
	last := now
	if c.Deadline != nil && c.Deadline.After(last) {
		last = *c.Deadline
	}
	return Entry{
		Run: c.Run(pcID), State: EntryReceived, Command: &c, TraceParent: traceParent,
		ReceivedAt: now.UTC(), KeepUntil: last.UTC().Add(keepEntries),
	}
}
