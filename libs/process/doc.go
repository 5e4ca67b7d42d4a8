// Package process is what every process of kanade has beside its work: a main that reads flags and environment, makes
// the logger and obeys signals; secrets from a value or a file; health, readiness and metrics over HTTP, with the check
// that asks for them; and tracing when the standard variables ask for it.
//
// It knows nothing of kanade: services hand in what is theirs.
package process
