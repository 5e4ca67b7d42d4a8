package projector

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// retryMin and retryMax bound the pause before what the broker or the disk refused is tried again.
const (
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
)

// feed brings one stream into the read model.
type feed struct {
	stream   string
	bus      *bus.Bus
	writer   *readmodel.Writer
	maxBatch int
	logger   *slog.Logger
	metrics  atomic.Pointer[metrics] // nil for a file that nobody is given yet
	// until is the last message that is applied; 0: there is none. heard, if there is one, is told of every message.
	until uint64
	heard func(bus.RawMsg)

	mu      sync.Mutex
	applied uint64
	// stored is when the broker stored what was applied last, moved when that was applied, by the clock of this host.
	stored, moved time.Time
	failing       error
}

// run follows the stream until ctx ends. An error is a *bus.LogReset or *bus.LogPruned: it is not the stream that was
// read so far, or it has forgotten what was to come. Or the file is damaged (readmodel.IsCorrupt).
func (f *feed) run(ctx context.Context) error {
	for wait := retryMin; ctx.Err() == nil; wait = min(2*wait, retryMax) {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var reset *bus.LogReset
		var pruned *bus.LogPruned
		if errors.As(err, &reset) || errors.As(err, &pruned) || readmodel.IsCorrupt(err) {
			return err
		}
		f.fail("can't follow; trying again", err)
		pause(ctx, wait)
	}
	return nil
}

func (f *feed) follow(ctx context.Context) error {
	at, err := f.writer.Checkpoint(f.stream)
	if err != nil {
		return err
	}
	f.progress(at.Sequence, at.At)
	ctx, cancel := context.WithCancel(ctx)
	batches := make(chan batch) // without a buffer: one is decoded while another is written, and the rest waits as one
	written := make(chan error, 1)
	go func() { written <- f.writeAll(ctx, cancel, batches) }()
	err = f.bus.Follow(ctx, bus.FollowConfig{
		Stream: f.stream, From: at.Sequence + 1, KnownAt: at.At, MaxBatch: f.maxBatch, Name: "projector",
		// Of PRESENCE only the newest of each endpoint is there, so the next one after the checkpoint may be gone.
		LastPerSubject: f.stream == events.StreamPresence,
	}, func(ctx context.Context, raw []bus.RawMsg) error {
		if f.until > 0 {
			if end := slices.IndexFunc(raw, func(m bus.RawMsg) bool { return m.Seq > f.until }); end >= 0 {
				raw = raw[:end]
			}
		}
		if len(raw) == 0 {
			return nil
		}
		if f.heard != nil {
			for _, m := range raw {
				f.heard(m)
			}
		}
		b := newBatch(f.stream, raw)
		select {
		case batches <- b:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	cancel()
	close(batches)
	if damaged := <-written; damaged != nil {
		return damaged
	}
	return err
}

// upTo follows the stream until everything up to a message is applied, and nothing behind it.
func (f *feed) upTo(ctx context.Context, until uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.until = until
	ended := make(chan error, 1)
	go func() { ended <- f.run(ctx) }()
	reached := make(chan error, 1)
	go func() { reached <- f.reach(ctx, until) }()
	select {
	case err := <-ended:
		cancel()
		return errors.Join(err, <-reached)
	case err := <-reached:
		cancel()
		return errors.Join(err, <-ended)
	}
}

// pollEvery is how often a feed is looked at by whoever waits for it, and askEvery how often the broker is asked what is to
// come while it stands still: a batch takes some fifty milliseconds, and for each answer the broker opens a file.
const (
	pollEvery = 5 * time.Millisecond
	askEvery  = 200 * time.Millisecond
)

// reach waits until everything up to a message is applied, or is in the stream no more. The error is that of ctx.
func (f *feed) reach(ctx context.Context, until uint64) error {
	before, still := f.position(), time.Duration(0)
	for before < until {
		pause(ctx, pollEvery)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		still += pollEvery
		if is := f.position(); is != before {
			before, still = is, 0
		} else if still >= askEvery {
			still = 0
			if m, ok, err := f.bus.Next(ctx, f.stream, before+1); err == nil && (!ok || m.Seq > until) {
				return nil
			}
		}
	}
	return nil
}

func (f *feed) position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
}

// writeAll writes batches until there are no more, with a step of forgetting behind each of them. While none waits, it
// forgets and makes outputs searchable, step by step. When the file turns out to be damaged, which is the error, it asks for
// an end by stop and passes over the rest.
func (f *feed) writeAll(ctx context.Context, stop func(), batches <-chan batch) (damaged error) {
	for idle := f.stream == events.StreamLog; ; {
		var b batch
		var more bool
		if idle {
			select {
			case b, more = <-batches:
			default:
				idle, damaged = f.forget(ctx)
				if !idle && damaged == nil {
					idle, damaged = f.step(ctx, "make outputs searchable", f.writer.WriteWords)
				}
				if damaged != nil {
					stop()
				}
				continue
			}
		} else {
			b, more = <-batches
		}
		if !more {
			return damaged
		}
		err := f.write(ctx, b)
		if err == nil && f.stream == events.StreamLog {
			_, err = f.forget(ctx)
		}
		if err != nil {
			damaged = err
			stop()
		}
		idle = f.stream == events.StreamLog && damaged == nil
	}
}

// forget is a step of forgetting.
func (f *feed) forget(ctx context.Context) (more bool, damaged error) {
	return f.step(ctx, "forget what is too old", f.writer.Forget)
}

// step does a part of what can wait, and reports whether there is more of it. What the disk refuses is tried again after the
// next batch; the error is that of a file that is damaged.
func (f *feed) step(ctx context.Context, what string, do func(context.Context) (bool, error)) (more bool, damaged error) {
	more, err := do(ctx)
	if readmodel.IsCorrupt(err) {
		return false, err
	}
	if err != nil && ctx.Err() == nil {
		f.logger.Warn("can't "+what+"; trying again after the next messages", "error", err)
	}
	return more && err == nil, nil
}

// batch is what waited, decoded.
type batch struct {
	readmodel.Batch
	stored time.Time // of the last message
	traced []traced
}

func newBatch(stream string, raw []bus.RawMsg) batch {
	messages := make([]readmodel.Message, len(raw))
	for i, m := range raw {
		messages[i] = readmodel.Message(m)
	}
	return batch{Batch: readmodel.Decode(stream, messages), stored: raw[len(raw)-1].Time, traced: tracedIn(raw)}
}

// write parks what can't be decoded and applies the rest, and tries for ever what the broker or the disk refuses. The
// error is that of a file that is damaged.
func (f *feed) write(ctx context.Context, b batch) error {
	for wait := retryMin; ctx.Err() == nil; wait = min(2*wait, retryMax) {
		err := f.apply(ctx, b)
		if err == nil || readmodel.IsCorrupt(err) {
			return err
		}
		if ctx.Err() != nil {
			break
		}
		f.fail("can't apply; staying here and trying again", err)
		pause(ctx, wait)
	}
	return nil
}

func (f *feed) apply(ctx context.Context, b batch) error {
	poison := b.Poison()
	for _, p := range poison {
		// On a subject of its own: another projector, or one that builds its model anew, finds it there and leaves it.
		dead := bus.Dead{Handler: "projector", Message: bus.RawMsg(p.Message), Reason: p.Err, Once: true}
		if err := f.bus.Park(ctx, dead); err != nil {
			return err
		}
	}
	started := time.Now()
	span := startBatch(ctx, f.stream, b)
	_, err := f.writer.ApplyBatch(ctx, b.Batch)
	span.end(ctx, started, err)
	if err != nil {
		return err
	}
	f.metrics.Load().applied(f.stream, b.Len(), len(poison), time.Since(started))
	for _, p := range poison {
		f.logger.Warn("parked", "sequence", p.Message.Seq, "subject", p.Message.Subject, "error", p.Err)
	}
	f.progress(b.Last(), b.stored)
	return nil
}

func (f *feed) progress(sequence uint64, stored time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sequence > f.applied || f.moved.IsZero() {
		f.applied, f.stored, f.moved = sequence, stored, time.Now()
	}
	f.failing = nil
	f.metrics.Load().sequence(f.stream, f.applied)
	f.metrics.Load().stalls(f.stream, false)
}

// fail keeps what hinders the feed, and says it once for as long as it stays the same.
func (f *feed) fail(message string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing == nil || f.failing.Error() != err.Error() {
		f.logger.Warn(message, "error", err)
	}
	f.failing = err
	f.metrics.Load().stalls(f.stream, true)
}

// hindrance is why the lag is not getting less; nil while it may.
func (f *feed) hindrance() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failing
}

// lag is how many sequence numbers the stream is ahead, asked of its leader, or why that is not known.
func (f *feed) lag(ctx context.Context) (applied, lag uint64, err error) {
	last, err := f.bus.LastSeq(ctx, f.stream)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied, last - min(last, f.applied), err
}

// age is how long ago, at a moment of the broker's clock, what was applied last was stored, and still for how long nothing has
// been applied; false while nothing is. An age beside no lag only says that nothing happens.
func (f *feed) age(now time.Time) (age, still time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stored.IsZero() {
		return 0, 0, false
	}
	return max(0, now.Sub(f.stored)), time.Since(f.moved), true
}

// now is the broker's clock; this host's while the broker is away.
func (f *feed) now(ctx context.Context) time.Time {
	now, err := f.bus.Now(ctx)
	if err != nil {
		return time.Now()
	}
	return now
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
