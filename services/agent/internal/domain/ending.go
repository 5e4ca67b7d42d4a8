package domain

import (
	"errors"
	"slices"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Causes for which a run is cut short: the cause of the context that an executor runs in.
var (
	ErrTimeout = errors.New("timeout")
	ErrKilled  = errors.New("killed by remote signal")
	// ErrStopped is reported as a kill too: a clean stop of the agent kills what runs and says so. What was started is
	// never started again, and a script that outlives its agent could not be answered for.
	ErrStopped = errors.New("agent stopped")
)

// Ending is how a run has ended.
type Ending struct {
	State events.TargetState
	// ExitCode is nil when the script did not end by itself.
	ExitCode *int
	Reason   string
	// Detail says events.ReasonNotStarted in words.
	Detail string
}

// Lost is the ending of a run that was started and whose end nobody saw: it may have done anything, so it is not run
// again.
func Lost() Ending { return Ending{State: events.StateUnknown, Reason: "the agent died while it ran"} }

// Judge says how an attempt has ended, from what the executor returned and the cause for which it was cut short (nil if
// it was not). An attempt that ended by itself before the cause took effect has ended by itself.
//
// A script that could not be started has failed, and is no skip: the endpoint was asked for what it could not do, like a
// directory that is not there, and has said that it begins. As a skip it would pass every budget, and a job that can run
// nowhere would go on to the whole fleet.
func (c Command) Judge(exit Exit, err, cause error) Ending {
	if err == nil && exit.Signal == "" {
		code := exit.Code
		if slices.Contains(c.SuccessCodes, code) {
			return Ending{State: events.StateSucceeded, ExitCode: &code}
		}
		return Ending{State: events.StateFailed, ExitCode: &code}
	}
	switch {
	case errors.Is(cause, ErrTimeout):
		return Ending{State: events.StateTimedOut, Reason: wire.TimeoutNote(uint64(c.Timeout / time.Second))}
	case errors.Is(cause, ErrKilled), errors.Is(cause, ErrStopped):
		return Ending{State: events.StateKilled, Reason: cause.Error()}
	case errors.Is(err, ErrNotStarted):
		return Ending{State: events.StateFailed, Reason: events.ReasonNotStarted, Detail: err.Error()}
	case err != nil:
		return Ending{State: events.StateFailed, Reason: err.Error()}
	default:
		return Ending{State: events.StateFailed, Reason: "ended by signal " + exit.Signal}
	}
}

// Again reports whether another attempt follows the given one (counted from 1): after a failure and after a timeout,
// never after a kill.
func (c Command) Again(attempt int, e Ending) bool {
	return attempt < c.Attempts && (e.State == events.StateFailed || e.State == events.StateTimedOut)
}
