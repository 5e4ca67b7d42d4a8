// Package events is the language of kanade: the facts of the log, the subjects they are stored on, the streams that
// hold them, and the rules that turn facts into state.
//
// It is the one package that every service, every stored byte and every later version must agree on, so it holds only
// what outlives the code: names, shapes and pure functions. It does no I/O, reads no clock, draws no random number and
// imports no messaging library.
//
// Rooms:
//
//   - event.go, envelope.go: the CloudEvents 1.0 envelope in its binary mode for NATS.
//   - subject.go: where a fact is stored; the escape that makes one token of any id.
//   - stream.go, bucket.go: every stream, bucket and object store, with its limits and the reason for each.
//   - type.go: the registry of fact types, from which docs/events.md is generated.
//   - job.go, schedule.go, exec.go, agent.go, run.go, config.go, clock.go: the facts, one file an aggregate.
//   - target.go, outcome.go: the state of one endpoint in one exec as a fold of facts, and what an exec amounts to.
//   - wire/: the messages of kanade 0.43.45, which old agents speak.
//
// Rules that hold for all of it: fields are only added; another meaning is another version of the type; a golden JSON
// of a version is never edited.
package events
