package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// projector keeps one slot's read model.
type projector struct {
	config  Config
	bus     *bus.Bus
	slot    *readmodel.Slot
	logger  *slog.Logger
	metrics *metrics
	// checks are those that were asked for: one waits at most, the newest.
	checks chan check
	// pasts are the past moments that were asked for.
	pasts chan pastAsked

	mu   sync.Mutex
	live *model // nil until the slot's file is open
}

// model is one file and what feeds it.
type model struct {
	writer *readmodel.Writer
	feeds  []*feed
	stop   context.CancelFunc
	served chan struct{} // closed when readers are given it, and it has what the streams had
	// alone is closed when no other model of the slot is fed, and settled when it has what such a one had, and readers
	// have had the time to see that: what it has replaced may go.
	alone, settled chan struct{}
	ended          chan error
}

// streams feed a model.
func streams() []string { return []string{events.StreamLog, events.StreamPresence} }

// run keeps the slot's model until ctx ends.
func (p *projector) run(ctx context.Context) (err error) {
	if err := p.begin(ctx); ctx.Err() != nil && err != nil {
		return nil
	} else if err != nil {
		return fmt.Errorf("start projector: %w", err)
	}
	defer func() { err = errors.Join(err, p.end(p.live)) }()
	for i, stream := range streams() {
		if err := p.metrics.watch(stream, func() *feed { return p.feeds()[i] }); err != nil {
			return fmt.Errorf("start projector: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	checked := make(chan *model, 1)
	checking := false
	defer func() {
		cancel()
		if checking {
			if next := <-checked; next != nil {
				err = errors.Join(err, p.end(next))
			}
		}
	}()
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	settled := p.live.settled
	for {
		var asked chan check // one check at a time, of a model that is served
		if settled == nil && !checking {
			asked = p.checks
		}
		select {
		case err := <-p.live.ended:
			p.live.ended <- nil // for end
			if ctx.Err() != nil || !readmodel.IsCorrupt(err) {
				return p.explain(err)
			}
			p.logger.Error("the file is damaged; building another one", "file", p.live.writer.Path(), "error", err)
			if err := p.replace(ctx); err != nil {
				return err
			}
			settled = p.live.settled
		case <-settled:
			settled = nil
			if checking {
				continue // the file of the check is not to be removed
			}
			if err := p.slot.Keep(p.live.writer); err != nil {
				p.logger.Warn("remove what was replaced", "error", err)
			}
			p.tidy()
		case <-tidy.C:
			if settled == nil {
				p.tidy()
			}
		case c := <-asked:
			checking = true
			live := p.live
			go func() { checked <- p.check(ctx, live, c) }()
		case next := <-checked:
			checking = false
			if next == nil {
				continue
			}
			if err := p.turn(next); err != nil {
				return err
			}
			settled = next.settled
		}
	}
}

// begin opens the slot's file, or makes one, and starts to feed it. Only an empty slot is given a snapshot: what was
// damaged, or is to be built anew, is replayed from the log.
func (p *projector) begin(ctx context.Context) error {
	if !p.config.Rebuild {
		if err := p.beginWithSnapshot(ctx); err != nil {
			return err
		}
	}
	w, damaged, err := p.slot.Continue(ctx)
	if err != nil {
		return err
	}
	if damaged != nil {
		p.logger.Error("a damaged file was removed; it is built anew", "slot", p.slot.Path(), "error", damaged)
	}
	if p.config.Rebuild && w.Served() {
		if err := w.Close(); err != nil {
			return err
		}
		if w, err = p.slot.Build(ctx); err != nil {
			return err
		}
	}
	p.logger.Info("projecting", "file", w.Path(), "served", w.Served())
	p.set(p.feed(ctx, w, p.metrics))
	close(p.live.alone)
	return nil
}

// replace begins a new file in place of the live one, which is removed.
func (p *projector) replace(ctx context.Context) error {
	if err := errors.Join(p.end(p.live), p.live.writer.Remove()); err != nil {
		p.logger.Warn("remove damaged file", "error", err)
	}
	w, err := p.slot.Build(ctx)
	if err != nil {
		return err
	}
	p.set(p.feed(ctx, w, p.metrics))
	close(p.live.alone)
	return nil
}

// turn makes another model the live one. What it replaces is fed no more.
func (p *projector) turn(next *model) error {
	old := p.live
	for _, f := range next.feeds {
		f.metrics.Store(p.metrics)
	}
	p.set(next)
	err := p.end(old)
	close(next.alone)
	return err
}

// tidyEvery is how often a projector looks for files of other schemas that may go.
const tidyEvery = time.Hour

// tidy removes files of other schemas from the slot that nobody has fed for long.
func (p *projector) tidy() {
	removed, err := p.slot.Tidy(p.live.writer, time.Now())
	for _, path := range removed {
		p.logger.Info("removed a file of another schema, which nobody has fed for long", "file", path, "kept", readmodel.KeptFor)
		p.metrics.removed.Inc()
	}
	if err != nil {
		p.logger.Warn("remove files of other schemas", "error", err)
	}
}

// feed starts to feed a file. One that is not served yet is, when it has everything that the log had.
func (p *projector) feed(ctx context.Context, w *readmodel.Writer, m *metrics) *model {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	x := &model{
		writer: w, stop: cancel, served: make(chan struct{}), alone: make(chan struct{}), settled: make(chan struct{}), ended: make(chan error, 1),
	}
	for _, stream := range streams() {
		f := p.feedOf(stream, w, m)
		if stream == events.StreamLog {
			f.heard = func(raw bus.RawMsg) { p.hear(w, raw) }
		}
		x.feeds = append(x.feeds, f)
		group.Go(func() error {
			if err := f.run(ctx); err != nil {
				return fmt.Errorf("project %s: %w", f.stream, err)
			}
			return nil
		})
	}
	group.Go(func() error { return p.serve(ctx, x) })
	go func() { x.ended <- group.Wait() }()
	return x
}

func (p *projector) feedOf(stream string, w *readmodel.Writer, m *metrics) *feed {
	f := &feed{stream: stream, bus: p.bus, writer: w, maxBatch: p.config.MaxBatch, logger: p.logger.With("stream", stream)}
	f.metrics.Store(m)
	return f
}

// replacedAfter is how long a file that was replaced is still there when it is behind: longer than a reader stays with one
// without looking for a better one.
const replacedAfter = time.Second

// serve gives the model to readers as soon as it has what the streams had when somebody looked, and then says when what it
// has replaced is needed no more.
func (p *projector) serve(ctx context.Context, x *model) error {
	continued := x.writer.Served()
	err := p.persist(ctx, x, func() error {
		if err := x.reach(ctx); err != nil {
			return err
		}
		if continued {
			return p.recall(ctx)
		}
		if err := x.writer.Serve(ctx); err != nil {
			return err
		}
		p.logger.Info("serving", "file", x.writer.Path())
		return nil
	})
	if err != nil || ctx.Err() != nil {
		return err
	}
	close(x.served)
	select {
	case <-x.alone:
	case <-ctx.Done():
		return nil
	}
	if err := p.persist(ctx, x, func() error { return x.reach(ctx) }); err != nil {
		return err
	}
	if pause(ctx, replacedAfter); ctx.Err() == nil {
		close(x.settled)
	}
	return nil
}

// persist tries until it succeeds or ctx ends. The error is that of a file that is damaged.
func (p *projector) persist(ctx context.Context, x *model, try func() error) error {
	for wait, failed := retryMin, false; ctx.Err() == nil; wait, failed = min(2*wait, retryMax), true {
		err := try()
		switch {
		case err == nil && failed:
			x.feeds[0].progress(0, time.Time{})
			return nil
		case err == nil || readmodel.IsCorrupt(err):
			return err
		case ctx.Err() == nil:
			x.feeds[0].fail("can't bring the file to where the streams are; trying again", err)
			pause(ctx, wait)
		}
	}
	return nil
}

// reach waits until the model has what the streams have.
func (x *model) reach(ctx context.Context) error {
	for _, f := range x.feeds {
		last, err := f.bus.LastSeq(ctx, f.stream)
		if err == nil {
			err = f.reach(ctx, last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// end stops feeding a model and closes its file.
func (p *projector) end(x *model) error {
	x.stop()
	<-x.ended
	return x.writer.Close()
}

func (p *projector) set(x *model) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = x
}

// model is the live one; nil until the slot's file is open.
func (p *projector) model() *model {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}

// feeds are those of the live model; none until there is one.
func (p *projector) feeds() []*feed {
	if x := p.model(); x != nil {
		return x.feeds
	}
	return nil
}

// serving reports whether readers are given the live model, and it had what the streams had.
func (p *projector) serving() bool {
	x := p.model()
	if x == nil {
		return false
	}
	select {
	case <-x.served:
		return true
	default:
		return false
	}
}

// explain says what to do about an error that ends the projector.
func (p *projector) explain(err error) error {
	var reset *bus.LogReset
	var pruned *bus.LogPruned
	if errors.As(err, &reset) || errors.As(err, &pruned) {
		return fmt.Errorf("%w; start the projector once with --rebuild: it builds a new file from this log and then serves that instead of %s", err, p.slot.Path())
	}
	return err
}
