package domain

import (
	"context"
	"errors"
	"io"
)

// ErrNotStarted says that nothing of a script has run.
var ErrNotStarted = errors.New("the script could not be started")

// Executor runs scripts. The agent's own starts processes; tests and simulations script theirs. All methods may be
// called by many goroutines at once.
type Executor interface {
	// Supports reports whether this system has the shell.
	Supports(shell string) bool
	// Run runs a script once and blocks until it has ended or, soon after ctx is done, has been killed with all its
	// descendants. It writes the script's output to the two writers, each from one goroutine at a time and none after it
	// has returned. An error means that the script could not be started, and is ErrNotStarted then, or not be waited for.
	Run(ctx context.Context, name string, s Script, env []string, stdout, stderr io.Writer) (Exit, error)
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code of a process that ended by itself.
	Code int
	// Signal names the signal that ended it; empty when it ended by itself.
	Signal string
}
