// Package view keeps the buckets that agents read equal to the log, and takes into the log what an old CLI writes there.
//
// Contract. A value bears the log sequence it was made from and is never replaced by an earlier one. A revision without
// one is an operator's act with an old CLI: nothing of ours covers it before it has been looked at (adopt.go). Between
// the two handlers of a bucket nothing is lost: whoever brings a fact and finds such a revision leaves the bucket to
// whoever adopts that, who writes what the log says over it and looks at the log again afterwards. So, when everybody is
// quiet, the bucket shows the newest fact, and that is the newest act, whichever way it came. Any number of schedulers
// may run.
package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// Register adds the handlers of all views and adoptions to a router. Their durables, which are their names too, are
// view-groups, view-scripts, view-freeze and view-documents on LOG, and adopt-<bucket> on the stream of each bucket that an old CLI
// writes. reg gets the counter of adoptions; several schedulers may share one, nil means none.
func Register(router *bus.Router, b *bus.Bus, logger *slog.Logger, reg prometheus.Registerer) error {
	count, err := newCounter(reg)
	if err != nil {
		return fmt.Errorf("register views: %w", err)
	}
	push := func(stream, durable string, filters ...string) message.Subscriber {
		sub, subErr := b.PushSubscriber(bus.PushConfig{Stream: stream, Durable: durable, Filters: filters})
		err = errors.Join(err, subErr)
		return sub
	}
	for _, k := range []bucket{groups(), scripts()} {
		a := &adopter{bucket: k, bus: b, logger: logger, count: count}
		router.Handle(k.durable, push(events.StreamLog, k.durable, k.filters()...), k.show(b, logger))
		name := "adopt-" + k.name
		router.HandleRaw(name, push(bus.BucketStream(k.name), name), a.revision)
	}
	router.Handle("view-freeze", push(events.StreamLog, "view-freeze", freezeFilters()...), showFreeze(b, logger))
	router.Handle("view-documents", push(events.StreamLog, "view-documents", documentFilters()...), showDocument(b, logger))
	if err != nil {
		return fmt.Errorf("register views: %w", err)
	}
	return nil
}

// bucket is one whose keys are the ids of an aggregate: the newest of some facts of the aggregate makes the key's value.
type bucket struct {
	name string
	// durable is the consumer, and the handler, that shows it.
	durable   string
	aggregate events.Aggregate
	// facts are the last words of those facts' subjects.
	facts []string
	// value is what the bucket shows of a fact; false when it is none of those facts.
	value func(events.Payload) ([]byte, bool)
	// act is the fact that somebody states who writes a value, nil for a deletion, under a key. Whether key is an id at all
	// is not its business.
	act func(key string, value []byte) (events.Payload, error)
	// nothing is the value that means the same as no key.
	nothing string
}

func (k bucket) filters() []string {
	var filters []string
	for _, f := range k.facts {
		filters = append(filters, events.FactFilter(k.aggregate, f))
	}
	return filters
}

// show is the handler that writes a fact's value.
func (k bucket) show(b *bus.Bus, logger *slog.Logger) bus.Handler {
	return func(ctx context.Context, m bus.Stored) error {
		p, err := m.Payload()
		if err != nil {
			return bus.Permanent(err)
		}
		value, ok := k.value(p)
		if !ok {
			return nil
		}
		err = b.PutView(ctx, k.name, m.Subject, value, m.Seq)
		if errors.Is(err, bus.ErrForeign) {
			logger.Debug("an old CLI's act stands in the way; its adoption goes on from here", "bucket", k.name, "key", m.Subject, "sequence", m.Seq)
			return nil
		}
		return err
	}
}
