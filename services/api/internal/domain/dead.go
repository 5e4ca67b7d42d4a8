package domain

import (
	"kanade/libs/events"
)

// Dead is a message that a handler gave up: its place in DEAD, the stream and subject that it is of.
type Dead struct {
	Seq             uint64
	Stream, Subject string
}

// Retry refuses to append a message anew at the end of the log unless it may stand there: what endpoints report of runs
// may. Everything else has its place in an order: a fact that others have followed would undo them, and the handler that
// gave it up finds it in the log already. What came by another stream is no fact.
func (d Dead) Retry() error {
	switch {
	case d.Stream != events.StreamLog:
		return Refuse(Unprocessable, "dead letter %d can't be retried: it is of %s, and only messages of %s are appended anew",
			d.Seq, d.Stream, events.StreamLog)
	case !events.IsRunSubject(d.Subject):
		return Refuse(Conflict, "dead letter %d can't be retried: what has been decided since %s rests on its place in the log. Make the request anew",
			d.Seq, d.Subject)
	}
	return nil
}

// DeadBodyGone refuses to retry a message whose body was too large to be carried twice, and is in its own stream no more.
func DeadBodyGone(seq uint64) error {
	return Refuse(Conflict, "dead letter %d can't be retried: its body was too large to be kept with it, and has left the log", seq)
}
