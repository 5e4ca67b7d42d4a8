// Package domain holds what the agent decides, as pure functions: whether a command may run, how a run has ended, what
// the log is told about it. Times, ids and lookups come in as parameters; nothing here does I/O.
//
// The life of a command on an endpoint is a ledger entry that moves received -> started -> done and never back. Each
// move is stored together with the message that tells the log of it, so that neither exists without the other.
package domain
