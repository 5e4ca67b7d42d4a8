// Package domain decides what the API does with a request: pure functions from the current documents and the request to
// the fact to append, or to a Refusal. Time, ids and everything read come in as arguments; nothing here does I/O.
//
// One file a noun: job.go, schedule.go, exec.go, group.go, script.go, freeze.go, object.go, run.go, retry.go,
// dead.go; intent.go has what operators do to an exec, and refusal.go the few codes that HTTP translates once.
package domain
