package events

import "time"

// Retain is how long the system remembers. Whoever forgets asks it, with the time of the log as the present: the time at
// which the broker stored the last fact that he knows.
//
// What is older than History is forgotten: runs, their outputs, the targets of execs. What is older than Ledger is
// forgotten: execs with their totals, ticks. An exec is as old as its request, a run as the fact that ended it. Zero is for
// ever.
type Retain struct{ History, Ledger time.Duration }

// HistoryAt is the instant before which what History covers is forgotten at a time of the log. It moves once an hour, so
// that there is a moment when everything is forgotten that has to be.
func (r Retain) HistoryAt(log time.Time) time.Time { return before(log, r.History) }

// LedgerAt is HistoryAt for what Ledger covers.
func (r Retain) LedgerAt(log time.Time) time.Time { return before(log, r.Ledger) }

func before(log time.Time, age time.Duration) time.Time {
	if age <= 0 {
		return time.Time{}
	}
	return log.Truncate(time.Hour).Add(-age)
}

// ClockID is the one id of the aggregate "clock".
const ClockID = "day"

// ClockTicked says that a day has begun and nothing else: the log's time goes on while nobody does anything.
type ClockTicked struct {
	ID string `json:"id"`
	// Day is a date in UTC.
	Day string `json:"day"`
}

func (ClockTicked) EventType() string     { return "kanade.clock.ticked.v1" }
func (p ClockTicked) AggregateID() string { return p.ID }

var sampleClockTicked = ClockTicked{ID: ClockID, Day: "2026-11-23"}
