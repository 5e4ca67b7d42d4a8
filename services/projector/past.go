package projector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// pastAsked is a request for a model of a past moment, and when the broker stored it.
type pastAsked struct {
	sequence uint64
	at       time.Time
}

const (
	// recentRequest is how old a request may be: whoever asked has gone. An API asks again every minute.
	recentRequest = 5 * time.Minute
	// keptPasts is how many models of past moments a directory holds.
	keptPasts = 8
)

// hearPast takes a request for the past up. Of too many the oldest is forgotten, and will be asked for again.
func (p *projector) hearPast(asked pastAsked) {
	for {
		select {
		case p.pasts <- asked:
			return
		default:
		}
		select {
		case <-p.pasts:
		default:
		}
	}
}

// buildPasts builds what is asked for, one at a time.
func (p *projector) buildPasts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case asked := <-p.pasts:
			now, err := p.bus.Now(ctx)
			if err == nil && now.Sub(asked.at) > recentRequest {
				continue // the log that is replayed is full of them
			}
			if err == nil {
				err = p.buildPast(ctx, asked.sequence)
			}
			if err != nil && ctx.Err() == nil {
				p.logger.Error("build the read model of a past moment", "sequence", asked.sequence, "error", err)
			}
		}
	}
}

// buildPast builds the model of the log up to a message, unless it is there.
func (p *projector) buildPast(ctx context.Context, sequence uint64) (err error) {
	past, err := readmodel.ClaimPast(ctx, p.config.ReadModelDir, p.config.Limits.OrDefault().Kept())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, past.Close()) }()
	present, ok, err := p.bus.LastRaw(ctx, events.StreamLog, ">")
	if err != nil {
		return err
	}
	if !ok || sequence == 0 || sequence > present.Seq {
		return fmt.Errorf("the log ends at %d", present.Seq)
	}
	since := present.Time.Add(-readmodel.PastKept)
	if is, err := p.hasPast(ctx, sequence, since); err != nil || is {
		return err
	}
	if err := past.Remove(sequence); err != nil {
		return err
	}
	began := time.Now()
	w, from, err := p.replayPast(ctx, past, sequence)
	if err != nil {
		return err
	}
	// Before, so that it is not the one that goes.
	err = past.Thin(since, keptPasts-1)
	if err == nil {
		err = p.offerPast(ctx, past, w, sequence, present.Time)
	}
	if err != nil {
		return errors.Join(err, w.Remove())
	}
	p.logger.Info("built the read model of a past moment", "sequence", sequence, "snapshot", from, "took", time.Since(began))
	return nil
}

// hasPast reports whether there is a model of a sequence that is of this log.
func (p *projector) hasPast(ctx context.Context, sequence uint64, since time.Time) (is bool, err error) {
	r, err := readmodel.OpenPast(ctx, p.config.ReadModelDir, sequence, since)
	if err != nil {
		return false, nil //nolint:nilerr // what can't be opened is made anew
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	at, stored, err := r.Applied(ctx)
	if err != nil {
		return false, nil //nolint:nilerr // as above
	}
	return p.bus.StoredAt(ctx, events.StreamLog, at, stored)
}

// replayPast brings a model up to a message: the nearest snapshot before it that can be used, else an empty one. It gives
// the snapshot's sequence as well, 0 for none.
func (p *projector) replayPast(ctx context.Context, past *readmodel.Past, sequence uint64) (*readmodel.Writer, uint64, error) {
	found, err := p.usable(ctx, sequence)
	if err != nil {
		p.logger.Warn("look for a snapshot; beginning with the log", "error", err)
	}
	for _, s := range found {
		room := past.Room()
		err := p.fetch(ctx, s, room)
		if err == nil {
			var w *readmodel.Writer
			if w, err = p.replay(ctx, past, room, sequence); err == nil {
				return w, s.sequence, nil
			}
		}
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		p.logger.Error("a snapshot can't be used; trying what is older", "error", err)
	}
	w, err := p.replay(ctx, past, past.Room(), sequence)
	return w, 0, err
}

// replay applies what the log holds behind a file's position up to a message.
func (p *projector) replay(ctx context.Context, past *readmodel.Past, room string, sequence uint64) (*readmodel.Writer, error) {
	w, err := past.Build(ctx, room)
	if err != nil {
		return nil, err
	}
	if err := p.feedOf(events.StreamLog, w, nil).upTo(ctx, sequence); err != nil {
		return nil, errors.Join(err, w.Remove())
	}
	return w, nil
}

// offerPast finishes a model of the past and gives it to readers. It forgets here, behind the replay, by the present log's
// time and not by that of its last message: so it is the same from a snapshot, which may hold what the log does not any
// more, and from the log.
func (p *projector) offerPast(ctx context.Context, past *readmodel.Past, w *readmodel.Writer, sequence uint64, present time.Time) error {
	reduced, err := p.reducedSince(ctx, sequence)
	if err == nil {
		err = w.ForgetAt(ctx, present, reduced)
	}
	for more := true; more && err == nil; {
		more, err = w.WriteWords(ctx)
	}
	if err != nil {
		return err
	}
	return past.Offer(ctx, w, sequence, present)
}

// reducedSince names the execs that were reduced behind a sequence.
func (p *projector) reducedSince(ctx context.Context, sequence uint64) (execs []string, err error) {
	const page = 1000
	filter := jetstreamext.GetBatchSubject(events.FactFilter(events.AggregateExec, "reduced"))
	for got := page; got == page; {
		got = 0
		for m, err := range p.bus.Batch(ctx, events.StreamLog, page, filter, jetstreamext.GetBatchSeq(sequence+1)) {
			if err != nil {
				return nil, fmt.Errorf("read which execs were reduced since %d: %w", sequence, err)
			}
			got, sequence = got+1, m.Sequence
			raw := bus.RawMsg{Subject: m.Subject, Header: events.Header(m.Header), Data: m.Data}
			if e, err := raw.Event(); err == nil { // what can't be decoded reduces nothing
				execs = append(execs, e.Subject)
			}
		}
	}
	return execs, nil
}

// discardPast takes out every snapshot and every model of the past: they may hold rows that were found not to be as the log
// says.
func (p *projector) discardPast(ctx context.Context) (err error) {
	if err := p.discard(ctx); err != nil {
		return err
	}
	past, err := readmodel.ClaimPast(ctx, p.config.ReadModelDir, p.config.Limits.OrDefault().Kept())
	if err != nil {
		return err
	}
	return errors.Join(past.Thin(time.Time{}, 0), past.Close())
}
