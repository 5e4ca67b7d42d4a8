package domain

import (
	"slices"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
)

// Exec is one exec that has not expired: the fold of its own facts and of what endpoints say of it.
type Exec struct {
	ID         string    `json:"id"`
	ScheduleID string    `json:"schedule_id,omitempty"`
	Nominal    time.Time `json:"nominal,omitzero"`
	Version    string    `json:"version,omitempty"`
	// RequestedAt is when the broker stored the request.
	RequestedAt time.Time `json:"requested_at"`
	// LastSeq is the last sequence of the exec's aggregate: what an append expects.
	LastSeq uint64 `json:"last_seq"`
	// TraceParent is the W3C trace context of the aggregate's last fact, in which the next one goes on; empty without.
	TraceParent string `json:"traceparent,omitempty"`
	Planned     bool   `json:"planned,omitempty"`
	Waves       []Wave `json:"waves,omitempty"`
	// Lasts is how long it takes at most from a command to its answer, Keeps how long after its wave a command waits for an
	// endpoint that is away; 0 where the exec has a deadline.
	Lasts time.Duration `json:"lasts,omitempty"`
	Keeps time.Duration `json:"keeps,omitempty"`
	// MaxFailures and MaxParallel are the plan's budgets; nil: none.
	MaxFailures *int                     `json:"max_failures,omitempty"`
	MaxParallel *int                     `json:"max_parallel,omitempty"`
	Paused      bool                     `json:"paused,omitempty"`
	Targets     map[string]events.Target `json:"targets,omitempty"`
	Totals      events.Totals            `json:"totals"`
	// Said is what the log's last fact with totals says of them, once the exec has closed, and SaidAt when.
	Said   events.Totals `json:"said,omitzero"`
	SaidAt time.Time     `json:"said_at,omitzero"`
	// Settled: every endpoint has answered, and Targets is forgotten. It stays so, whatever still happens to the exec.
	Settled bool `json:"settled,omitempty"`
	// Outcome is set when the exec has ended. Closed: ExecClosed is in the log. Stopped: it was killed, cancelled or halted,
	// whether or not that is its outcome. Killed: it was killed.
	Outcome events.Outcome `json:"outcome,omitempty"`
	Closed  bool           `json:"closed,omitempty"`
	Stopped bool           `json:"stopped,omitempty"`
	Killed  bool           `json:"killed,omitempty"`
	// DeadlineAt is the plan's. ExpiresAt is, too, until a wave goes out later than planned.
	DeadlineAt time.Time `json:"deadline_at,omitzero"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
}

// Wave is one wave of an exec.
type Wave struct {
	// DueAt, After, Delay and Pause are when it goes out, as events.PlannedWave has it.
	DueAt time.Time     `json:"due_at"`
	After bool          `json:"after,omitempty"`
	Delay time.Duration `json:"delay,omitempty"`
	Pause bool          `json:"pause,omitempty"`
	// Advanced: an operator lets it go out now.
	Advanced bool `json:"advanced,omitempty"`
	// Size is how many endpoints are in it, Expected how many of them the outcome waits for. Released is how many may have
	// their commands, Dispatched how many are known to have.
	Size       int `json:"size"`
	Expected   int `json:"expected"`
	Released   int `json:"released"`
	Dispatched int `json:"dispatched"`
	// OutAt is when the last of it was dispatched; zero: never.
	OutAt time.Time `json:"out_at,omitzero"`
	// Open is how many of its expected endpoints have not answered, AnsweredAt when the last answer came.
	Open       int       `json:"open"`
	AnsweredAt time.Time `json:"answered_at,omitzero"`
	// Order lists its endpoints where it goes out in parts; nil otherwise.
	Order []string `json:"order,omitempty"`
}

// wave is the one of a number; nil where the plan has no such wave. The log may hold any number, so that whoever takes one
// from a fact asks here.
func (x *Exec) wave(i int) *Wave {
	if i < 0 || i >= len(x.Waves) {
		return nil
	}
	return &x.Waves[i]
}

// Ended reports whether the outcome is decided.
func (x *Exec) Ended() bool { return x.Outcome != "" }

// Busy reports whether a script of it runs, or is about to, on some endpoint: what the overlap of ticks asks for.
func (x *Exec) Busy() bool {
	for _, state := range []events.TargetState{events.StateReceived, events.StateRunning} {
		if x.Totals.Expected[state]+x.Totals.Others[state] > 0 {
			return true
		}
	}
	return false
}

// open counts the endpoints that have a command of it, or may have, and have not answered.
func (x *Exec) open() int {
	n := 0
	for _, state := range []events.TargetState{events.StateSent, events.StateReceived, events.StateRunning} {
		n += x.Totals.Expected[state] + x.Totals.Others[state]
	}
	return n
}

// set puts a target into its new state and keeps the totals, and what its wave counts, equal to the targets.
func (x *Exec) set(pc string, t events.Target) {
	if old, ok := x.Targets[pc]; ok {
		x.Totals.Remove(old)
		x.count(old, -1)
	}
	if x.Targets == nil {
		x.Targets = map[string]events.Target{}
	}
	x.Targets[pc] = t
	x.Totals.Add(t)
	x.count(t, 1)
}

func (x *Exec) count(t events.Target, n int) {
	w := x.wave(t.Wave)
	if !t.Expected || w == nil {
		return
	}
	if !t.State.Final() {
		w.Open += n
	} else if n > 0 && t.At.After(w.AnsweredAt) {
		w.AnsweredAt = t.At
	}
}

func (x *Exec) request(p events.ExecRequested, at time.Time) {
	x.ScheduleID, x.Version, x.RequestedAt = p.ScheduleID, p.Version, at
	if p.Nominal != nil {
		x.Nominal = *p.Nominal
	}
	if plan, err := catalog.ParsePlanDocument(p.Plan); err == nil {
		x.Lasts = fanout.Bound(p, plan)
		x.Keeps = fanout.Keep(p, plan)
	}
}

// Late gives the deadline and the expiry of a wave's commands that go out at an instant for which the plan was not made: the
// wave waited for the one before, for a person, or for a free place. Nil: those of the plan stand. The waves behind it have
// their time, too. No time is later than history after the request (fanout.Within).
func (x *Exec) Late(wave int, now time.Time, history time.Duration) (deadline, expires *time.Time) {
	if x.Keeps == 0 {
		return nil, nil
	}
	rest := make([]fanout.Timing, 0, len(x.Waves))
	for _, w := range x.Waves[wave+1:] {
		rest = append(rest, fanout.Timing{DueAt: w.DueAt, After: w.After, Delay: w.Delay, Pause: w.Pause && !w.Advanced})
	}
	late := fanout.Within(events.ExecPlanned{
		DeadlineAt: now.Add(x.Keeps), ExpiresAt: fanout.LastOut(rest, now, x.Lasts, x.Keeps).Add(x.Keeps).Add(x.Lasts),
	}, x.RequestedAt, history)
	if late.ExpiresAt.After(x.ExpiresAt) {
		expires = &late.ExpiresAt
	}
	if late.DeadlineAt.After(x.DeadlineAt) {
		deadline = &late.DeadlineAt
	}
	return deadline, expires
}

// plan takes the first plan; a second one changes nothing.
func (x *Exec) plan(p events.ExecPlanned, seq uint64, at time.Time) {
	if x.Planned {
		return
	}
	x.Planned, x.DeadlineAt, x.ExpiresAt = true, p.DeadlineAt, p.ExpiresAt
	x.MaxFailures, x.MaxParallel = p.MaxFailures, p.MaxParallel
	x.Waves = make([]Wave, len(p.Waves))
	for i, w := range p.Waves {
		x.Waves[i] = Wave{
			DueAt: w.DueAt, After: w.After, Delay: w.Delay(), Pause: w.Pause,
			Size: w.Size(), Expected: len(w.Expected),
		}
		if p.MaxParallel != nil {
			x.Waves[i].Order = slices.Concat(w.Expected, w.Waiting)
		}
	}
	for pc, t := range p.Targets() {
		t.At, t.Sequence = at, seq
		x.set(pc, t)
	}
}

func (x *Exec) released(p events.WaveReleased) {
	w := x.wave(p.Wave)
	if w == nil {
		return
	}
	_, end := events.Part(w.Size, p.From, p.To) // parts follow one another
	w.Released = max(w.Released, end)
	if p.ExpiresAt != nil {
		x.ExpiresAt = *p.ExpiresAt
	}
}

// dispatched marks whom the read model marks: a part that does not fit its wave is what it has in common with it, and a
// wave that does not go out in parts has none.
func (x *Exec) dispatched(p events.WaveDispatched, seq uint64, at time.Time) {
	w := x.wave(p.Wave)
	if w == nil {
		return
	}
	_, end := events.Part(w.Size, p.From, p.To)
	w.Dispatched = max(w.Dispatched, end)
	w.Released = max(w.Released, w.Dispatched)
	w.OutAt = at
	send := func(pc string) {
		if next, changed := x.Targets[pc].Send(seq, at); changed {
			x.set(pc, next)
		}
	}
	if p.From == 0 && p.To == 0 {
		for pc, t := range x.Targets {
			if t.Wave == p.Wave {
				send(pc)
			}
		}
		return
	}
	first, end := events.Part(len(w.Order), p.From, p.To)
	for _, pc := range w.Order[first:end] {
		send(pc)
	}
}

// run applies what an endpoint says; the answer is the target when that changed it. An endpoint outside the plan becomes
// an unplanned target, counted apart.
func (x *Exec) run(f events.RunFact, seq uint64, at time.Time) (events.Target, bool) {
	if !x.Planned || x.Settled {
		return events.Target{}, false
	}
	next, changed := x.Targets[f.PCID].Apply(f, seq, at)
	if changed {
		x.set(f.PCID, next)
	}
	return next, changed
}

// stop ends the exec, if nothing has ended it yet, and settles those that have not said that they have their command. It
// gives the ids of those it settled.
func (x *Exec) stop(outcome events.Outcome, reason string, seq uint64, at time.Time) []string {
	if x.Outcome == "" {
		x.Outcome = outcome
	}
	x.Stopped = true
	x.Killed = x.Killed || outcome == events.OutcomeKilled
	return x.settle(func(t events.Target) (events.Target, bool) { return t.Stop(reason, seq, at) })
}

// expire settles every open target and gives the ids of those it settled.
func (x *Exec) expire(seq uint64, at time.Time) []string {
	return x.settle(func(t events.Target) (events.Target, bool) { return t.Expire(seq, at) })
}

func (x *Exec) settle(change func(events.Target) (events.Target, bool)) []string {
	var settled []string
	for pc, t := range x.Targets {
		if next, changed := change(t); changed {
			x.set(pc, next)
			settled = append(settled, pc)
		}
	}
	return settled
}

// out reports whether every wave is out; of one that goes out in parts, what the outcome waits for.
func (x *Exec) out() bool {
	for i := range x.Waves {
		w := &x.Waves[i]
		if w.Released > w.Dispatched || w.Dispatched < w.Expected || x.MaxParallel == nil && w.Dispatched < w.Size {
			return false
		}
	}
	return true
}

// shrink forgets the endpoints of an exec that has ended and that nobody has anything more to say of that counts: what
// remains is its totals. What was stopped may still be said to have run.
func (x *Exec) shrink() {
	if x.Closed && !x.Stopped && x.Totals.Open() == 0 && x.Totals.OthersOpen() == 0 {
		x.Settled, x.Targets = true, nil
	}
}
