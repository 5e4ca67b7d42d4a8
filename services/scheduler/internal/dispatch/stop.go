package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Stopped handles one ExecKilled, ExecCancelled or ExecHalted. Repeating it does what is missing.
func (d *Dispatcher) Stopped(ctx context.Context, m bus.Stored) error {
	x, err := d.load(ctx, m.Subject)
	if errors.Is(err, errReduced) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := d.tell(ctx, x, m); err != nil {
		return err
	}
	if err := d.remove(ctx, x, true); err != nil {
		return err
	}
	return d.bus.SetTimer(ctx, bus.Timer{
		Kind: TimerSweep, Key: x.id, Generation: fmt.Sprint(m.Seq), At: m.StoredAt.Add(sweepAfter),
	})
}

// tell writes down for endpoints that the exec is stopped, until it has expired, and kills what runs.
func (d *Dispatcher) tell(ctx context.Context, x *exec, m bus.Stored) error {
	left := time.Minute
	if rest := x.expiresAt.Sub(m.StoredAt); rest > left {
		left = rest
	}
	word := events.OutcomeCancelled
	switch m.Type {
	case events.ExecKilled{}.EventType():
		word = events.OutcomeKilled
	case events.ExecHalted{}.EventType():
		word = events.OutcomeHalted
	}
	err := d.bus.PutViewFor(ctx, events.BucketExecStopped, x.id, []byte(word), m.Seq, left)
	if err != nil && !errors.Is(err, bus.ErrForeign) {
		return fmt.Errorf("stop exec %s: %w", x.id, err)
	}
	return d.kill(x)
}

func (d *Dispatcher) kill(x *exec) error {
	if !x.killed {
		return nil
	}
	if err := d.bus.Conn().Publish(wire.SubjectKill(x.id), nil); err != nil {
		return fmt.Errorf("kill exec %s: %w", x.id, err)
	}
	return nil
}

// Sweep cleans up once more after an exec was stopped.
func (d *Dispatcher) Sweep(ctx context.Context, t bus.Timer) error {
	x, err := d.load(ctx, t.Key)
	if errors.Is(err, errReduced) || errors.Is(err, errNoRequest) {
		return nil // it has been forgotten, and its commands with it
	}
	if err != nil {
		return err
	}
	return errors.Join(d.kill(x), d.remove(ctx, x, true))
}

// Wave handles the timer of a wave: the fold looks at the exec.
func (d *Dispatcher) Wave(_ context.Context, t bus.Timer) error {
	d.fold.TouchExec(t.Key, t.At)
	return nil
}
