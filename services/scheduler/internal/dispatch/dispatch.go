// Package dispatch turns an ExecRequested into commands for agents, and takes them out again when the exec is stopped or
// its time is up.
//
// Contract, step by step; each is decided on the fold of the exec's own facts and appended against its last sequence:
//
//  1. ExecRequested is answered by ExecPlanned, which decides who runs it. It rests on the fleet, so the fold must hold
//     everything that the log holds before the request. One message: a plan is never torn, and two schedulers can't both
//     decide it.
//  2. The supervisor appends WaveReleased when a wave, or a part of one, may go out, with the last sequence of EXEC.
//  3. WaveReleased is answered by commands, in pages that are acknowledged, under message ids made of exec, wave and subject, and
//     then by WaveDispatched. Before the first command the version is pinned in the bucket script_current.
//  4. ExecKilled, ExecCancelled and ExecHalted are answered by an entry in the bucket exec_stopped, which endpoints read
//     before they start what has waited; what the exec left in EXEC is deleted; a kill is told to whoever runs it. The
//     deletion and the kill are repeated once, after the time for which the broker knows doubles: a sender that stalled
//     may have stored more.
//
// Whoever finds WaveReleased without WaveDispatched scans EXEC from the recorded sequence and sends only what is missing:
// a duplicate would be stored once and heard twice. Between two pages of commands the exec's facts are read again; one
// that is over is not sent any further and what was sent is deleted.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
	"kanade/services/scheduler/internal/supervisor"
)

// Names of the consumers and handlers; renaming one does its work again from the log's beginning.
const (
	Durable     = "dispatch"
	SendDurable = "send"
	StopDurable = "stop"
)

// TimerSweep is the kind of the timer for the second clean-up of an exec that was stopped; its key is the exec.
const TimerSweep = "sweep"

// sweepAfter is longer than the broker knows doubles.
const sweepAfter = 130 * time.Second

// Dispatcher handles ExecRequested and expiries. Safe for concurrent use.
type Dispatcher struct {
	bus    *bus.Bus
	fold   *supervisor.Supervisor
	logger *slog.Logger
}

// New makes a dispatcher on a fold.
func New(b *bus.Bus, fold *supervisor.Supervisor, logger *slog.Logger) *Dispatcher {
	return &Dispatcher{bus: b, fold: fold, logger: logger}
}

// Filters are the subjects of the facts that Requested handles.
func Filters() []string { return []string{events.FactFilter(events.AggregateExec, "requested")} }

// SendFilters are the subjects of the facts that Released handles.
func SendFilters() []string {
	return []string{events.FactFilter(events.AggregateExec, "wave-released")}
}

// StopFilters are the subjects of the facts that Stopped handles.
func StopFilters() []string {
	var filters []string
	for _, fact := range []string{"killed", "cancelled", "halted"} {
		filters = append(filters, events.FactFilter(events.AggregateExec, fact))
	}
	return filters
}

// attempts is how often an exec is folded anew at once when it has changed under a decision; then the message comes back
// after a while.
const attempts = 10

// Requested handles one ExecRequested: it plans. One that was stopped before has nobody to wait for, and is settled at
// once. Repeating it does what is missing. At first it takes the request for all that the log holds of the exec: if there is
// more, the append is refused.
func (d *Dispatcher) Requested(ctx context.Context, m bus.Stored) error {
	if bus.Delivered(ctx) == 1 {
		x := begin(m.Subject)
		if err := x.take(m); err != nil {
			return err
		}
		if x.requested != nil {
			if err := d.plan(ctx, x); !errors.Is(err, bus.ErrConflict) {
				return err
			}
		}
	}
	return d.again(ctx, m.Subject, func(ctx context.Context, x *exec) error {
		switch {
		case x.planned != nil || x.expired:
			return nil
		case x.over:
			return d.dismiss(ctx, x)
		default:
			return d.plan(ctx, x)
		}
	})
}

// Released handles one WaveReleased: it sends. Repeating it does what is missing.
func (d *Dispatcher) Released(ctx context.Context, m bus.Stored) error {
	p, err := m.Payload()
	if err != nil {
		return bus.Permanent(err)
	}
	r, ok := p.(events.WaveReleased)
	if !ok {
		return bus.Permanent(fmt.Errorf("send wave: %s is no release", m.Type))
	}
	tried := bus.Delivered(ctx) != 1
	if !tried {
		if x, err := d.released(ctx, m); err != nil {
			return err
		} else if x != nil {
			if err := d.wave(ctx, x, r, false); !errors.Is(err, bus.ErrConflict) {
				return err
			}
			tried = true
		}
	}
	return d.again(ctx, m.Subject, func(ctx context.Context, x *exec) error {
		resumed := tried
		tried = true
		return d.wave(ctx, x, r, resumed)
	})
}

// again folds an exec and does something with it, until nobody else has changed the exec meanwhile. For one that has been
// reduced nothing is left to be done.
func (d *Dispatcher) again(ctx context.Context, id string, do func(context.Context, *exec) error) (err error) {
	for range attempts {
		var x *exec
		if x, err = d.load(ctx, id); errors.Is(err, errReduced) {
			return nil
		}
		if err != nil {
			return err
		}
		if err = do(ctx, x); !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
	return err
}

// pin makes the version of the exec the one that endpoints may run.
func (d *Dispatcher) pin(ctx context.Context, x *exec) error {
	err := d.bus.PutView(ctx, events.BucketScriptCurrent, x.requested.JobID, []byte(x.requested.Version), x.requestedSeq)
	if errors.Is(err, bus.ErrForeign) {
		return d.repin(ctx, x)
	}
	if err != nil {
		return fmt.Errorf("pin version of job %s for exec %s: %w", x.requested.JobID, x.id, err)
	}
	return nil
}

// repin covers a pin that an old backend or CLI has left.
func (d *Dispatcher) repin(ctx context.Context, x *exec) error {
	v, _, err := d.bus.View(ctx, events.BucketScriptCurrent, x.requested.JobID)
	if err == nil {
		err = d.bus.ReplaceView(ctx, events.BucketScriptCurrent, x.requested.JobID, []byte(x.requested.Version), x.requestedSeq, v.Revision)
	}
	if err != nil {
		return fmt.Errorf("pin version of job %s for exec %s: %w", x.requested.JobID, x.id, err)
	}
	return nil
}

func (d *Dispatcher) plan(ctx context.Context, x *exec) error {
	plan, err := catalog.ParsePlanDocument(x.requested.Plan)
	if err != nil {
		return bus.Permanent(fmt.Errorf("plan exec %s: %w", x.id, err))
	}
	if err := d.fold.Reach(ctx, x.requestedSeq); err != nil {
		return fmt.Errorf("plan exec %s: %w", x.id, err)
	}
	now, err := d.bus.Now(ctx)
	if err != nil {
		return fmt.Errorf("plan exec %s: %w", x.id, err)
	}
	var p events.ExecPlanned
	d.fold.Read(func(s *domain.State) {
		p = fanout.Within(fanout.Plan(*x.requested, plan, s.Fleet, now), x.requestedAt, s.Retain().History)
	})
	return d.append(ctx, x, p, now, uuid.NewString())
}

// wave sends what was released; resumed: somebody may have sent some of it.
func (d *Dispatcher) wave(ctx context.Context, x *exec, r events.WaveReleased, resumed bool) error {
	this := part{r.Wave, r.From}
	if _, known := x.released[this]; !known || x.planned == nil {
		return fmt.Errorf("send wave %d of exec %s: %w", r.Wave, x.id, errNoRequest)
	}
	if x.over {
		if !x.dispatched[this] { // it ended while somebody was sending
			return d.remove(ctx, x, true)
		}
		return nil
	}
	if x.dispatched[this] {
		return nil
	}
	plan, err := catalog.ParsePlanDocument(x.requested.Plan)
	if err != nil {
		return bus.Permanent(fmt.Errorf("send wave %d of exec %s: %w", r.Wave, x.id, err))
	}
	if err := d.pin(ctx, x); err != nil {
		return err
	}
	ids, _ := fanout.Part(*x.planned, r)
	request := *x.requested
	if len(x.planned.Subjects) == 0 {
		if request, err = d.carried(ctx, x, len(ids)); err != nil {
			return err
		}
	}
	commands := fanout.CommandsOf(request, plan, *x.planned, r)
	var sent map[string][]uint64
	if resumed {
		if sent, err = d.sent(ctx, x.id, r.ExecStreamSequence); err != nil {
			return err
		}
	}
	if over, err := d.send(ctx, x, this, commands, sent); err != nil || over {
		return err
	}
	return d.waveDispatched(ctx, x, r, commands.Len())
}

func (d *Dispatcher) waveDispatched(ctx context.Context, x *exec, r events.WaveReleased, commands int) error {
	last, err := d.bus.LastSeq(ctx, events.StreamExec)
	if err != nil {
		return fmt.Errorf("dispatch wave %d of exec %s: %w", r.Wave, x.id, err)
	}
	now, err := d.bus.Now(ctx)
	if err != nil {
		return fmt.Errorf("dispatch wave %d of exec %s: %w", r.Wave, x.id, err)
	}
	p := events.WaveDispatched{ExecID: x.id, Wave: r.Wave, From: r.From, To: r.To, Commands: commands, ExecStreamSequence: last}
	return d.append(ctx, x, p, now, events.DeriveID(x.id, "dispatched", strconv.Itoa(r.Wave), strconv.Itoa(r.From)))
}

// send stores commands, but for those that were sent before, page by page. Between pages it looks at the exec: over says
// that it has ended meanwhile, and that what was sent is gone, or that somebody else has sent the rest.
func (d *Dispatcher) send(ctx context.Context, x *exec, this part, commands fanout.Commands, sent map[string][]uint64) (over bool, err error) {
	body, err := encodeBody(commands.Body)
	if err != nil {
		return false, fmt.Errorf("send commands of exec %s: %w", x.id, err)
	}
	for next := 0; ; {
		now, err := d.bus.Now(ctx)
		if err != nil {
			return false, fmt.Errorf("send commands of exec %s: %w", x.id, err)
		}
		var messages []*nats.Msg
		messages, next = body.page(ctx, commands, next, sent, now)
		if err := d.bus.PublishBatch(ctx, messages); err != nil {
			return false, fmt.Errorf("send commands of exec %s: %w", x.id, err)
		}
		if next == commands.Len() {
			return false, nil
		}
		if err := d.goOn(ctx, x); err != nil {
			return false, err
		}
		if x.over {
			return true, d.remove(ctx, x, true)
		}
		if x.dispatched[this] {
			return true, nil
		}
	}
}

// append stores a fact of the exec against its last sequence, caused by its request. The id of a decision that an effect
// of the caller's own follows is drawn, not derived: an append counts as done when a fact of that id is stored, and with a
// derived id two schedulers would both hold a plan for theirs that only one of them has made, or both send a wave.
func (d *Dispatcher) append(ctx context.Context, x *exec, p events.Payload, now time.Time, id string) error {
	e, err := events.New(p, events.Meta{
		ID: id, Source: supervisor.Source, Time: now, Actor: supervisor.Actor, CausationID: x.requestID, CorrelationID: x.id,
	})
	if err != nil {
		return bus.Permanent(err)
	}
	seq, err := d.bus.Append(ctx, e, x.lastSeq)
	if err != nil {
		return err
	}
	x.lastSeq = seq
	return nil
}
