package projector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// check is a request to hold the model against the log.
type check struct {
	id      string // of the request's envelope
	rebuild bool
}

// namedDifferences bounds how many rows that differ are named.
const namedDifferences = 100

// hear takes requests up. Those for a check are passed over by a file that is being built: the log that it replays is full
// of old ones.
func (p *projector) hear(w *readmodel.Writer, raw bus.RawMsg) {
	if !strings.HasPrefix(raw.Subject, "events."+string(events.AggregateConfig)+".") {
		return
	}
	m, err := raw.Stored()
	if err != nil {
		return // it is parked
	}
	payload, err := m.Payload()
	if err != nil {
		return
	}
	switch asked := payload.(type) {
	case events.ReadModelPastRequested:
		p.hearPast(pastAsked{asked.Sequence, m.StoredAt})
	case events.ReadModelCheckRequested:
		if w.Served() {
			p.hearCheck(check{m.ID, asked.Rebuild})
		}
	}
}

// hearCheck keeps the newest request.
func (p *projector) hearCheck(c check) {
	for {
		select {
		case p.checks <- c:
			return
		default:
		}
		select {
		case waiting := <-p.checks:
			c.rebuild = c.rebuild || waiting.rebuild
		default:
		}
	}
}

// recall takes up the newest request where the file has it behind it and this projector has not answered: it was killed
// meanwhile. What can't be decoded is no request.
func (p *projector) recall(ctx context.Context) error {
	c, lost, err := p.unanswered(ctx)
	var undecodable *events.DecodeError
	if errors.As(err, &undecodable) {
		return nil
	}
	if err != nil || !lost {
		return err
	}
	select {
	case p.checks <- c:
	default: // what waits is this one, or newer
	}
	return nil
}

func (p *projector) unanswered(ctx context.Context) (check, bool, error) {
	m, found, err := p.bus.Last(ctx, events.StreamLog, events.FactSubject(events.AggregateConfig, events.ReadModelID, "check-requested"))
	if err != nil || !found {
		return check{}, false, err
	}
	payload, err := m.Payload()
	if err != nil {
		return check{}, false, err
	}
	asked, _ := payload.(events.ReadModelCheckRequested)
	c := check{m.ID, asked.Rebuild}
	answers, err := p.bus.Load(ctx, events.AggregateConfig, events.ReadModelID, m.Seq)
	if err != nil {
		return check{}, false, err
	}
	host, _ := os.Hostname()
	mine := p.answerID(c, host)
	return c, !slices.ContainsFunc(answers, func(f bus.Stored) bool { return f.ID == mine }), nil
}

// answerID is the id of the answer to a request.
func (p *projector) answerID(c check, host string) string {
	return events.DeriveID(c.id, "checked", host, p.slot.Path())
}

// check replays the log into a file beside the live one, compares the two and says what it found. It gives the model that
// takes the live one's place: nil unless that was asked for and has succeeded.
func (p *projector) check(ctx context.Context, live *model, c check) *model {
	p.logger.Info("holding the read model against the log", "file", live.writer.Path(), "rebuild", c.rebuild)
	r := events.ReadModelChecked{ID: events.ReadModelID, Slot: p.slot.Name(), Schema: readmodel.SchemaID()}
	r.Host, _ = os.Hostname()
	next, err := p.examine(ctx, live, c, &r)
	if ctx.Err() == nil {
		if err != nil {
			r.Error = err.Error()
			p.logger.Error("hold the read model against the log", "error", err)
		}
		p.logger.Info("held the read model against the log", "sequence", r.Sequence, "differing", r.Differing, "rebuilt", r.Rebuilt)
		p.tell(ctx, c, r)
	}
	return next
}

func (p *projector) examine(ctx context.Context, live *model, c check, r *events.ReadModelChecked) (next *model, err error) {
	w, err := p.slot.Build(ctx)
	if err != nil {
		return nil, err
	}
	err = p.compare(ctx, live.writer, w, r)
	if readmodel.IsCorrupt(err) {
		p.logger.Error("the file is damaged; building another one", "file", live.writer.Path(), "error", err)
		r.Error, c.rebuild, err = err.Error(), true, nil
	}
	if len(r.Differing) > 0 {
		if err := p.discardPast(ctx); err != nil {
			p.logger.Error("take out snapshots and models of the past, which may be wrong as well", "error", err)
		}
	}
	if err != nil || !c.rebuild {
		return nil, errors.Join(err, w.Remove())
	}
	next = p.feed(ctx, w, nil)
	select {
	case <-next.served:
		r.Rebuilt = true
		return next, nil
	case err = <-next.ended:
		next.ended <- nil
	case <-ctx.Done():
	}
	return nil, errors.Join(err, p.end(next), w.Remove())
}

// nearby is how many messages a replay may be behind when the live file is looked at: while it catches up with them the
// live file's journal grows.
const nearby = 10_000

// compare looks at the whole of the live file, replays the log up to some message, and holds what the live file is at that
// message against it.
func (p *projector) compare(ctx context.Context, live, w *readmodel.Writer, r *events.ReadModelChecked) error {
	if err := checkFile(ctx, live.Path()); err != nil {
		return err
	}
	replay := p.feedOf(events.StreamLog, w, nil)
	for until, last := uint64(0), uint64(0); ; until = last {
		var err error
		if last, err = p.bus.LastSeq(ctx, events.StreamLog); err != nil {
			return err
		}
		if until > 0 && last-min(last, until) <= nearby {
			break
		}
		if err := replay.upTo(ctx, last); err != nil {
			return err
		}
	}
	retain := p.config.Limits.OrDefault().Kept()
	is, err := viewFrom(ctx, live.Path(), replay.position(), retain)
	if err != nil {
		return err
	}
	defer is.Close()
	if err := replay.upTo(ctx, is.Sequence); err != nil {
		return err
	}
	if err := w.ForgetAll(ctx); err != nil {
		return err
	}
	should, err := readmodel.OpenView(ctx, w.Path())
	if err != nil {
		return err
	}
	defer should.Close()
	differing, first, err := readmodel.Compare(ctx, is, should, namedDifferences)
	if err != nil {
		return err
	}
	if len(differing) > 0 {
		r.Differing = differing
	}
	for _, d := range first {
		r.Differences = append(r.Differences, d.String())
	}
	r.Sequence = is.Sequence
	r.Digests, err = should.Digest(ctx)
	return err
}

// checkFile looks for damage that no row shows: an index is read by queries, and by no comparison of rows.
func checkFile(ctx context.Context, path string) error {
	v, err := readmodel.OpenView(ctx, path)
	if err != nil {
		return err
	}
	return errors.Join(v.Check(ctx), v.Close())
}

// viewFrom looks at a file as soon as it has applied a message and has nothing left to forget.
func viewFrom(ctx context.Context, path string, sequence uint64, retain events.Retain) (*readmodel.View, error) {
	for {
		v, err := readmodel.OpenView(ctx, path)
		if err != nil {
			return nil, err
		}
		ready := v.Sequence >= sequence
		if ready {
			ready, err = v.Forgotten(ctx, retain)
		}
		if ready && err == nil {
			return v, nil
		}
		if err := errors.Join(err, v.Close()); err != nil {
			return nil, err
		}
		if pause(ctx, pollEvery); ctx.Err() != nil {
			return nil, fmt.Errorf("wait for sequence %d of %s: %w", sequence, filepath.Base(path), ctx.Err())
		}
	}
}

// tell appends what was found, for as long as it takes.
func (p *projector) tell(ctx context.Context, c check, r events.ReadModelChecked) {
	for wait := retryMin; ctx.Err() == nil; wait = min(2*wait, retryMax) {
		err := p.append(ctx, c, r)
		if err == nil {
			return
		}
		p.logger.Warn("append what was found; trying again", "error", err)
		pause(ctx, wait)
	}
}

func (p *projector) append(ctx context.Context, c check, r events.ReadModelChecked) error {
	now, err := p.bus.Now(ctx)
	if err != nil {
		return err
	}
	e, err := events.New(r, events.Meta{
		ID: p.answerID(c, r.Host), Source: "/kanade/projector", Time: now.UTC().Truncate(time.Microsecond),
		Actor: events.NewActor("service", "projector"), CausationID: c.id, CorrelationID: r.ID,
	})
	if err != nil {
		return err
	}
	_, err = p.bus.Append(ctx, e, bus.Any)
	return err
}
