package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// Expire handles the timer of an exec whose time is up: it settles what is still open and takes the commands out of EXEC.
func (d *Dispatcher) Expire(ctx context.Context, t bus.Timer) error {
	err := d.again(ctx, t.Key, func(ctx context.Context, x *exec) error {
		if t.At.Before(x.expiresAt) {
			return nil // a wave that went out later has moved it; that instant has a timer of its own
		}
		if !x.expired {
			if err := d.expire(ctx, x, t); err != nil {
				return err
			}
		}
		return errors.Join(d.remove(ctx, x, false), d.forget(ctx, x))
	})
	if errors.Is(err, errNoRequest) {
		if _, known, askErr := d.bus.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateExec, t.Key)); askErr != nil || known {
			return errors.Join(err, askErr)
		}
		return nil // the leader says so too: the exec itself has been forgotten
	}
	return err
}

// dismiss ends an exec that was stopped before it was planned.
func (d *Dispatcher) dismiss(ctx context.Context, x *exec) error {
	now, err := d.bus.Now(ctx)
	if err != nil {
		return fmt.Errorf("end exec %s: %w", x.id, err)
	}
	outcome := events.OutcomeCancelled
	if x.killed {
		outcome = events.OutcomeKilled
	}
	return d.append(ctx, x, events.ExecExpired{ExecID: x.id, Outcome: outcome}, now, events.DeriveID(x.id, "expired"))
}

func (d *Dispatcher) expire(ctx context.Context, x *exec, t bus.Timer) error {
	if err := d.fold.Fresh(ctx); err != nil {
		return fmt.Errorf("expire exec %s: %w", x.id, err)
	}
	var p events.ExecExpired
	found := false
	d.fold.Read(func(s *domain.State) {
		if e := s.Execs[x.id]; e != nil {
			p, found = domain.Expire(e, t.At), true
		}
	})
	if !found {
		return nil // another scheduler was first
	}
	return d.append(ctx, x, p, t.At, events.DeriveID(x.id, "expired"))
}

// removalsAtOnce bounds how many deletions are under way: each is a request to the broker.
const removalsAtOnce = 64

// commandID is the beginning of the message ids of an exec's commands.
func commandID(execID string) string { return execID + "/" }

// sent finds the commands of an exec that EXEC holds after a sequence: message id to sequences. It reads headers only.
func (d *Dispatcher) sent(ctx context.Context, execID string, after uint64) (map[string][]uint64, error) {
	last, err := d.bus.LastSeq(ctx, events.StreamExec)
	if err != nil {
		return nil, fmt.Errorf("look for commands of exec %s: %w", execID, err)
	}
	return d.scan(ctx, execID, after, last)
}

// scan looks at (after, last]. A command may be there twice: a system that was restored from a backup sends again what the
// log does not call dispatched. Its consumer is one that the client does not make anew behind our back: an ordered one
// leaves the broker a consumer for every fetch.
func (d *Dispatcher) scan(ctx context.Context, execID string, after, last uint64) (map[string][]uint64, error) {
	found := map[string][]uint64{}
	if last <= after {
		return found, nil
	}
	consumer, err := d.bus.JetStream().CreateConsumer(ctx, events.StreamExec, jetstream.ConsumerConfig{
		Description: "scan for " + execID, AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, Replicas: 1,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("look for commands of exec %s: %w", execID, err)
	}
	name, pending := consumer.CachedInfo().Name, consumer.CachedInfo().NumPending
	defer d.bus.JetStream().DeleteConsumer(context.WithoutCancel(ctx), events.StreamExec, name) //nolint:errcheck // it goes by itself
	for next := uint64(1); pending > 0; {
		batch, err := consumer.FetchNoWait(page)
		if err != nil {
			return nil, fmt.Errorf("look for commands of exec %s: %w", execID, err)
		}
		begun := next
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return nil, fmt.Errorf("look for commands of exec %s: %w", execID, err)
			}
			if meta.Sequence.Stream > last {
				return found, nil
			}
			if meta.Sequence.Consumer != next {
				return nil, fmt.Errorf("look for commands of exec %s: message %d of the scan came as %d: %w", execID, meta.Sequence.Consumer, next, bus.ErrUnavailable)
			}
			next, pending = next+1, meta.NumPending
			if id := m.Headers().Get(events.HeaderMsgID); strings.HasPrefix(id, commandID(execID)) {
				found[id] = append(found[id], meta.Sequence.Stream)
			}
		}
		if err := batch.Error(); err != nil || next == begun {
			return nil, fmt.Errorf("look for commands of exec %s: the scan ended early: %w", execID, errors.Join(err, bus.ErrUnavailable))
		}
	}
	return found, nil
}

// remove deletes what the exec's waves have left in EXEC, so that nobody who comes back hears it. It looks no further
// than what was dispatched may lie; everywhere looks to the end of EXEC, for what somebody may have sent since.
func (d *Dispatcher) remove(ctx context.Context, x *exec, everywhere bool) error {
	if len(x.released) == 0 {
		return nil
	}
	first, last := ^uint64(0), x.sentUpTo
	for p, seq := range x.released {
		first = min(first, seq)
		everywhere = everywhere || !x.dispatched[p]
	}
	if everywhere {
		var err error
		if last, err = d.bus.LastSeq(ctx, events.StreamExec); err != nil {
			return fmt.Errorf("remove commands of exec %s: %w", x.id, err)
		}
	}
	found, err := d.scan(ctx, x.id, first, last)
	if err != nil {
		return err
	}
	stream, err := d.bus.JetStream().Stream(ctx, events.StreamExec)
	if err != nil {
		return fmt.Errorf("remove commands of exec %s: %w", x.id, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(removalsAtOnce)
	for id, sequences := range found {
		for _, seq := range sequences {
			group.Go(func() error {
				if err := stream.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
					return fmt.Errorf("remove command %s: %w", id, err)
				}
				return nil
			})
		}
	}
	return group.Wait()
}
