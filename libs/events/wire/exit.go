package wire

import (
	"strconv"
	"strings"
)

// Exit codes that agents coin. Scripts end with the same numbers too (127 of a shell that finds no command), so the code
// alone proves nothing: see Skip and Ended.
const (
	// ExitVersionPin: the bucket script_current names another version.
	ExitVersionPin = 124
	// ExitDeadline: deadline_at had passed.
	ExitDeadline = 125
	// ExitRevoked: the bucket script_status says REVOKED.
	ExitRevoked = 126
	// ExitStaleness: staleness strict, and the connection was gone for too long.
	ExitStaleness = 127
	// ExitStopped: killed, timed out, or ended by a signal.
	ExitStopped = -1
)

// SkippedPrefix begins the stderr of every skip.
const SkippedPrefix = "skipped:"

// Skip tells whether the endpoint did not run the script, and the reason in the agent's words (ExitCode says which of the
// four it is). A skip has a code of 124 to 127, no stdout, a stderr that begins with SkippedPrefix, and began when it
// ended. It also has no EventStarted, which only the caller can know: with one, it is a run whatever this says.
func (r *ExecResult) Skip() (reason string, ok bool) {
	if r.ExitCode < ExitVersionPin || r.ExitCode > ExitStaleness {
		return "", false
	}
	if r.Stdout != "" || r.StdoutObject != "" || !r.StartedAt.Equal(r.FinishedAt) {
		return "", false
	}
	reason, ok = strings.CutPrefix(r.Stderr, SkippedPrefix)
	return strings.TrimSpace(reason), ok
}

// End is how a run ended.
type End string

// The ends. EndSignal is also what a script on Windows looks like that exits with -1 by itself.
const (
	EndExit    End = "exit"
	EndKilled  End = "killed"
	EndTimeout End = "timeout"
	EndSignal  End = "signal"
	// EndUnread: the exit code is -1, and what tells why is in the object StderrObject. EndOf tells from its text.
	EndUnread End = "unread"
)

// Ended tells how the run ended; a skip counts as EndExit.
func (r *ExecResult) Ended() End {
	if r.ExitCode == ExitStopped && r.Stderr == "" && r.StderrObject != "" {
		return EndUnread
	}
	return EndOf(r.ExitCode, r.Stderr)
}

// EndOf tells from the exit code and the text, or the tail, of stderr how a run ended. Agents append a note to stderr as
// its last line, without a newline at the end; where retries were made, one line about them follows it. A script that is
// ended by a signal after writing such a line itself is taken at its word.
func EndOf(exitCode int, stderr string) End {
	if exitCode != ExitStopped {
		return EndExit
	}
	rest, last := cutLastLine(stderr)
	if end := endOfNote(last); end != EndSignal || last == "" {
		return end
	}
	_, previous := cutLastLine(rest)
	return endOfNote(previous)
}

func cutLastLine(text string) (rest, last string) {
	i := strings.LastIndexByte(text, '\n')
	if i < 0 {
		return "", text
	}
	return text[:i], text[i+1:]
}

const (
	killedNote  = "killed by remote signal "
	timeoutNote = "timeout after "
)

// endOfNote is EndSignal for a line that is no note.
func endOfNote(line string) End {
	if strings.HasPrefix(line, killedNote) {
		return EndKilled
	}
	if n, ok := strings.CutPrefix(line, timeoutNote); ok {
		if n, ok = strings.CutSuffix(n, "s"); ok {
			if _, err := strconv.ParseUint(n, 10, 64); err == nil {
				return EndTimeout
			}
		}
	}
	return EndSignal
}

// KilledNote is the line that tells a kill of an exec.
func KilledNote(execID string) string { return killedNote + "(" + SubjectKill(execID) + ")" }

// TimeoutNote is the line that tells a timeout, in seconds.
func TimeoutNote(secs uint64) string { return timeoutNote + strconv.FormatUint(secs, 10) + "s" }
