package dispatch

import (
	"context"
	"errors"
	"fmt"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// exec is the fold of an exec's own facts.
type exec struct {
	id           string
	requested    *events.ExecRequested
	requestID    string // of the envelope
	requestedSeq uint64
	planned      *events.ExecPlanned
	released     map[int]uint64 // wave → last sequence of EXEC before it
	dispatched   map[int]bool
	sentUpTo     uint64 // last sequence of EXEC that a dispatched wave may have
	ended        bool
	expired      bool
	lastSeq      uint64
}

// torn reports whether a wave was let out and is not known to be all out.
func (x *exec) torn() bool {
	for wave := range x.released {
		if !x.dispatched[wave] {
			return true
		}
	}
	return false
}

// errNoRequest: whoever answered holds no request of the exec. It may be a follower that lags.
var errNoRequest = errors.New("the log holds no request")

func (d *Dispatcher) load(ctx context.Context, id string) (*exec, error) {
	facts, err := d.bus.Load(ctx, events.AggregateExec, id, 0)
	if err != nil {
		return nil, err
	}
	x := &exec{id: id, released: map[int]uint64{}, dispatched: map[int]bool{}}
	for _, f := range facts {
		p, err := f.Payload()
		if err != nil {
			return nil, bus.Permanent(err)
		}
		x.apply(f, p)
	}
	if x.requested == nil {
		return nil, fmt.Errorf("load exec %s: %w", id, errNoRequest)
	}
	return x, nil
}

func (x *exec) apply(f bus.Stored, p events.Payload) {
	x.lastSeq = f.Seq
	switch p := p.(type) {
	case events.ExecRequested:
		x.requested, x.requestID, x.requestedSeq = &p, f.ID, f.Seq
	case events.ExecPlanned:
		x.planned = &p
	case events.WaveReleased:
		x.released[p.Wave] = p.ExecStreamSequence
	case events.WaveDispatched:
		x.dispatched[p.Wave] = true
		x.sentUpTo = max(x.sentUpTo, p.ExecStreamSequence)
	case events.ExecClosed:
		x.ended = true
	case events.ExecExpired:
		x.ended, x.expired = true, true
	}
}
