package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// exec is the fold of an exec's own facts.
type exec struct {
	id           string
	requested    *events.ExecRequested
	requestID    string // of the envelope
	requestedSeq uint64
	requestedAt  time.Time // when the broker stored it
	planned      *events.ExecPlanned
	released     map[part]uint64 // last sequence of EXEC before it
	dispatched   map[part]bool
	sentUpTo     uint64 // last sequence of EXEC that what was dispatched may have
	expiresAt    time.Time
	// over: nothing of it may go out any more. killed: what runs is killed.
	over, killed, expired, reduced bool
	lastSeq                        uint64
}

// part is a wave, or a part of one, by its first place.
type part struct{ wave, from int }

// errReduced: the log holds no more than what the exec was. Its last timer may still come.
var errReduced = errors.New("it has ended long ago")

// errNoRequest: whoever answered holds no request of the exec. It may be a follower that lags.
var errNoRequest = errors.New("the log holds no request")

func begin(id string) *exec {
	return &exec{id: id, released: map[part]uint64{}, dispatched: map[part]bool{}}
}

// released makes of the last facts of an exec what a release needs: its request and its plan. Nil: something has been said
// since, or not all of it can be had.
func (d *Dispatcher) released(ctx context.Context, m bus.Stored) (*exec, error) {
	facts, err := d.bus.LastFacts(ctx, events.AggregateExec, m.Subject)
	if err != nil {
		return nil, err
	}
	x := begin(m.Subject)
	for _, f := range facts {
		if err := x.take(f); err != nil {
			return nil, err
		}
	}
	if x.lastSeq != m.Seq || x.requested == nil || x.planned == nil {
		return nil, nil
	}
	return x, nil
}

func (d *Dispatcher) load(ctx context.Context, id string) (*exec, error) {
	x := begin(id)
	if err := d.goOn(ctx, x); err != nil {
		return nil, err
	}
	if x.reduced {
		return nil, fmt.Errorf("load exec %s: %w", id, errReduced)
	}
	if x.requested == nil {
		return nil, fmt.Errorf("load exec %s: %w", id, errNoRequest)
	}
	return x, nil
}

// goOn takes in the facts since the last look: the first ones may name every endpoint there is.
func (d *Dispatcher) goOn(ctx context.Context, x *exec) error {
	facts, err := d.bus.Load(ctx, events.AggregateExec, x.id, x.lastSeq)
	if err != nil {
		return err
	}
	for _, f := range facts {
		if err := x.take(f); err != nil {
			return err
		}
	}
	return nil
}

// take applies a fact.
func (x *exec) take(f bus.Stored) error {
	p, err := f.Payload()
	if err != nil {
		return bus.Permanent(err)
	}
	x.lastSeq = f.Seq
	switch p := p.(type) {
	case events.ExecRequested:
		x.requested, x.requestID, x.requestedSeq, x.requestedAt = &p, f.ID, f.Seq, f.StoredAt
	case events.ExecPlanned:
		if x.planned == nil { // the first one counts
			x.planned, x.expiresAt = &p, p.ExpiresAt
		}
	case events.WaveReleased:
		x.released[part{p.Wave, p.From}] = p.ExecStreamSequence
		if p.ExpiresAt != nil {
			x.expiresAt = *p.ExpiresAt
		}
	case events.WaveDispatched:
		x.dispatched[part{p.Wave, p.From}] = true
		x.sentUpTo = max(x.sentUpTo, p.ExecStreamSequence)
	case events.ExecHalted, events.ExecCancelled:
		x.over = true
	case events.ExecKilled:
		x.over, x.killed = true, true
	case events.ExecExpired:
		x.over, x.expired = true, true
	case events.ExecReduced:
		x.over, x.expired, x.reduced = true, true, true
	}
	return nil
}
