// Package domain decides what the scheduler does: which waves go out, when an exec has ended, when a schedule fires.
// Everything in it is a pure function or a fold: facts, presence and the broker's time come in, facts to be appended come
// out. Who is in a wave, and with which commands, decides kanade/libs/catalog/fanout.
//
// State is the fold of the log. Its rooms: fleet.go (endpoints), exec.go (execs that have not expired), schedule.go
// (schedules and what they remember), and state.go, which routes each fact to its room. Its decisions: wave.go (which
// waves of an exec go out, and when it halts), close.go (how it ended), tick.go (ticks of a calendar), perpc.go (ticks of
// an interval), housekeeping.go and reduce.go (what leaves the log, and what an exec is reduced to).
//
// A State is not safe for concurrent use.
package domain
