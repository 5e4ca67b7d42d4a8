package domain

import (
	"slices"
	"time"

	"kanade/libs/events"
)

// Housekeeping decides what leaves the log. Its rules, by kind of fact; each deletes events.Slack after the read model has
// forgotten, so that a rebuild never knows less than what is shown:
//
//   - An exec that has expired and is older than the history is reduced: ExecReduced says in one fact what it was. Slack
//     after that, the facts before it go. ExecReduced goes when the exec is older than the ledger.
//   - Ticks go when they are older than the ledger, a schedule's newest one apart.
//   - Documents: each fact of one goes when a later one has stood in its place for as long as the ledger. The newest of
//     what lives never leaves; one that was deleted goes a ledger's time afterwards, with all that is left of its aggregate.
//   - What is on record about the copies of the read model goes when it is older than the ledger.
//   - A fact of progress goes when each of its endpoints has a later one, or the schedule was deleted a ledger's time ago.
//   - What endpoints said of runs, days of the clock, and what old agents and CLIs have written (events.AgingFilters) go when
//     they are older than the history.

// Due are the instants before which facts have had their time.
type Due struct {
	// History: execs that were requested before are reduced.
	History time.Time
	// Slack: what was decided before may be done.
	Slack time.Time
	// Ledger: what the ledger covers may go.
	Ledger time.Time
	// Aged: what ages may go.
	Aged time.Time
}

// DueAt are those at a time of the log.
func DueAt(r events.Retain, log time.Time) Due {
	slack := events.Retain{History: events.Slack}.HistoryAt(log)
	return Due{History: r.HistoryAt(log), Slack: slack, Ledger: r.LedgerAt(log).Add(-events.Slack), Aged: r.HistoryAt(log).Add(-events.Slack)}
}

// NextDay is the day of the clock that comes next, a date in UTC, and when it begins: today where the log's newest day has
// passed, otherwise tomorrow. A log that knows no day begins with tomorrow.
func NextDay(newest string, now time.Time) (day string, begins time.Time) {
	begins = now.UTC().Truncate(24 * time.Hour)
	if newest == "" || newest >= DayOf(now) {
		begins = begins.Add(24 * time.Hour)
	}
	return DayOf(begins), begins
}

// DayOf is the day of an instant.
func DayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// DocumentKind is a kind of document: facts of one aggregate of which the newest holds.
type DocumentKind struct {
	Aggregate events.Aggregate
	// States are the facts that say what it is, Ends those that say that there is none any more.
	States, Ends []string
}

// Facts are all of them.
func (k DocumentKind) Facts() []string { return slices.Concat(k.States, k.Ends) }

// DocumentKinds lists the kinds of documents. An endpoint is two: what it is, and which groups it is in.
func DocumentKinds() []DocumentKind {
	return []DocumentKind{
		{Aggregate: events.AggregateJob, States: []string{"saved"}, Ends: []string{"deleted"}},
		{Aggregate: events.AggregateSchedule, States: []string{"saved"}, Ends: []string{"deleted"}},
		{Aggregate: events.AggregateScript, States: []string{"revoked"}, Ends: []string{"unrevoked"}},
		{Aggregate: events.AggregateFreeze, States: []string{"saved"}, Ends: []string{"cleared"}},
		{Aggregate: events.AggregateConfig, States: []string{"saved"}},
		{Aggregate: events.AggregateConfig, States: []string{"calendar-saved"}, Ends: []string{"calendar-deleted"}},
		{Aggregate: events.AggregateAgent, States: []string{"seen"}},
		{Aggregate: events.AggregateAgent, States: []string{"grouped"}},
	}
}

// DocumentFact is a fact of a document as far as its retention asks.
type DocumentFact struct {
	// ID of the document.
	ID   string
	Seq  uint64
	Ends bool
}

// Outlived is what of a document may leave the log.
type Outlived struct {
	// Before: its facts before this sequence have been superseded; 0: none have.
	Before uint64
	// Ended: the last of its facts, whose sequence is Last, ends it, so that everything may go, if nothing has followed.
	Ended bool
	Last  uint64
}

// Superseded decides on all facts of a kind of document that are older than the ledger, in any order.
func Superseded(old []DocumentFact) map[string]Outlived {
	type newest struct {
		DocumentFact
		n int
	}
	last := map[string]newest{}
	for _, f := range old {
		x := last[f.ID]
		if x.n++; f.Seq > x.Seq {
			x.DocumentFact = f
		}
		last[f.ID] = x
	}
	outlived := map[string]Outlived{}
	for id, x := range last {
		o := Outlived{Ended: x.Ends, Last: x.Seq}
		if x.n > 1 {
			o.Before = x.Seq
		}
		if o.Ended || o.Before > 0 {
			outlived[id] = o
		}
	}
	return outlived
}

// TickLeaves reports whether a tick that is older than the ledger, and the newest of those of its schedule, may go: only if it
// is not the newest there is.
func TickLeaves(seq, newest uint64) bool { return seq < newest }
