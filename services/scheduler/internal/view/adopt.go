package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/supervisor"
)

// Results of looking at a revision that is not ours. The last two are refusals.
const (
	resultAdopted   = "adopted"   // the log holds it
	resultUnchanged = "unchanged" // it says what the log says
	resultOlder     = "older"     // the log holds a later act
	resultInvalid   = "invalid"   // it can't be read, or what it says can't be
)

func newCounter(reg prometheus.Registerer) (*prometheus.CounterVec, error) {
	count := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kanade_scheduler_adoptions_total",
		Help: "What old CLIs wrote into buckets, by bucket and result: adopted, unchanged, or refused as older or invalid.",
	}, []string{"bucket", "result"})
	if reg == nil {
		return count, nil
	}
	err := reg.Register(count)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if known, ok := there.ExistingCollector.(*prometheus.CounterVec); ok {
			return known, nil
		}
	}
	return count, err
}

// adopter takes the revisions of one bucket that are not ours into the log.
type adopter struct {
	bucket
	bus    *bus.Bus
	logger *slog.Logger
	count  *prometheus.CounterVec
}

// revision handles every revision of the bucket, in order. One that is not ours is appended as the fact that it states,
// under an id derived from bucket, key and revision; afterwards, adopted or refused, the key shows what the log says.
func (a *adopter) revision(ctx context.Context, m bus.RawMsg) error {
	v := bus.ViewOf(m)
	if v.Ours || v.Marker {
		return nil
	}
	key := strings.TrimPrefix(m.Subject, "$KV."+a.name+".")
	result, reason, err := a.adopt(ctx, key, v, m.Time)
	if err == nil {
		err = a.settle(ctx, key, v.Revision)
	}
	if err != nil {
		err = fmt.Errorf("adopt %s of %s, revision %d: %w", key, a.name, v.Revision, err)
		var undecodable *events.DecodeError
		if errors.As(err, &undecodable) {
			return bus.Permanent(err)
		}
		return err
	}
	a.count.WithLabelValues(a.name, result).Inc()
	if reason != nil {
		a.logger.Warn("what an old CLI wrote is refused", "bucket", a.name, "key", key, "revision", v.Revision, "reason", reason)
	} else {
		a.logger.Info("an old CLI wrote a bucket", "bucket", a.name, "key", key, "revision", v.Revision, "result", result)
	}
	return nil
}

// adopt decides on one revision that was written at a time of the broker's, and appends its fact. The reason is that of
// a refusal.
func (a *adopter) adopt(ctx context.Context, key string, v bus.View, at time.Time) (result string, reason, err error) {
	if err := events.ValidID(key); err != nil {
		return resultInvalid, err, nil
	}
	fact, err := a.act(key, v.Value)
	if err != nil {
		return resultInvalid, err, nil
	}
	e, err := events.New(fact, events.Meta{
		ID: events.DeriveID(a.name, key, strconv.FormatUint(v.Revision, 10)), Source: supervisor.Source,
		Time: at, Actor: a.actor(), CorrelationID: key,
	})
	if err != nil {
		return "", nil, err
	}
	if known, err := a.known(ctx, key, e.ID); known || err != nil {
		return resultAdopted, nil, err
	}
	for {
		// In this order: a fact that comes between the two reads makes the append a conflict.
		last, _, err := a.bus.LastRaw(ctx, events.StreamLog, events.AggregateFilter(a.aggregate, key))
		if err != nil {
			return "", nil, err
		}
		now, current, err := a.current(ctx, key)
		if err != nil {
			return "", nil, err
		}
		if now != nil && !a.follows(at, *now) {
			return resultOlder, fmt.Errorf("sequence %d of the log is later than %s", now.Seq, at.Format(time.RFC3339Nano)), nil
		}
		if said, _ := a.value(fact); string(said) == string(current) || current == nil && string(said) == a.nothing {
			return resultUnchanged, nil, nil
		}
		if _, err = a.bus.Append(ctx, e, last.Seq); !errors.Is(err, bus.ErrConflict) {
			return resultAdopted, nil, err
		}
	}
}

// actor is whom adopted facts are ascribed to.
func (a *adopter) actor() events.Actor { return events.NewActor("cli", a.name) }

// follows reports whether an act in the bucket is later than a fact. A fact that was adopted from the bucket happened
// when the revision was written, however late it was adopted; and as revisions come in order, the later one wins where
// the broker's clock shows one time for both.
func (a *adopter) follows(at time.Time, s bus.Stored) bool {
	if s.Actor == a.actor() {
		return !at.Before(s.Time)
	}
	return at.After(s.StoredAt)
}

// known reports whether a revision has been adopted before: whoever appended it may not have lived to acknowledge it, and
// other facts may have followed.
func (a *adopter) known(ctx context.Context, key, id string) (bool, error) {
	all, err := a.bus.Load(ctx, a.aggregate, key, 0)
	for _, s := range all {
		if s.ID == id {
			return true, err
		}
	}
	return false, err
}

// current is the newest fact that the key shows, nil if there is none, and its value. The log's leader answers.
func (a *adopter) current(ctx context.Context, key string) (newest *bus.Stored, value []byte, err error) {
	for _, fact := range a.facts {
		s, ok, err := a.bus.Last(ctx, events.StreamLog, events.FactSubject(a.aggregate, key, fact))
		if err != nil {
			return nil, nil, err
		}
		if ok && (newest == nil || s.Seq > newest.Seq) {
			newest = &s
		}
	}
	if newest == nil {
		return nil, nil, nil
	}
	p, err := newest.Payload()
	if err != nil {
		return nil, nil, err
	}
	value, _ = a.value(p)
	return newest, value, nil
}

// settle writes what the log says over a revision that has been looked at, and over what is ours and older; nothing is
// there, and was made from sequence 0, where the log says nothing. A later revision that is not ours has its own turn.
//
// The bucket is read before the log, and both again after each write: a fact whose handler found the revision in its way
// was in the log before the revision was covered, and so is seen here.
func (a *adopter) settle(ctx context.Context, key string, revision uint64) error {
	for {
		v, there, err := a.bus.View(ctx, a.name, key)
		if err != nil {
			return err
		}
		newest, value, err := a.current(ctx, key)
		if err != nil {
			return err
		}
		var seq uint64
		if newest != nil {
			seq = newest.Seq
		}
		switch {
		case there && v.Ours && v.LogSeq >= seq, !there && newest == nil:
			return nil
		case there && !v.Ours && !v.Marker && v.Revision != revision:
			return nil
		}
		err = a.bus.ReplaceView(ctx, a.name, key, value, seq, v.Revision)
		if err != nil && !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}
