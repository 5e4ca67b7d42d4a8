package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// Timeout bounds one request's dealings with the broker. People wait for the answer.
const Timeout = 2 * time.Second

// attempts bounds how often a decision is made anew because another writer was faster.
const attempts = 16

// source is the API in the envelope of its facts.
const source = "/kanade/api"

// ErrContended says that other writers were faster every time.
var ErrContended = errors.New("other writers keep changing it")

// TooLarge says that a fact does not fit one message, compressed.
type TooLarge struct {
	// Limit is the broker's, in bytes.
	Limit int64
}

func (e *TooLarge) Error() string {
	return fmt.Sprintf("compressed, it is larger than the broker's limit of %d bytes for one message; "+
		"a plan that names many endpoints fits when it names groups, or is asked for in parts", e.Limit)
}

// Caller is who asks and under which conditions.
type Caller struct {
	Actor events.Actor
	// Origin is what the client calls itself; may be empty.
	Origin string
	// Route is the method and path template of the request, Key its Idempotency-Key, if any, BodyHash the SHA-256 of its
	// body in lower-case hex.
	//
	// What a key stands for: a request that makes an exec (exec, run, retry) has its id made of caller, route and key, so one
	// key is one exec, whatever job or exec the path names; anything else under it is refused. A request that acts on
	// something that is there (an exec, a job, a schedule, an endpoint) is known by caller, route, key and that thing: one
	// key on the kills of two execs is two requests, and both are done. A request that changes nothing leaves nothing in
	// the log, so its key is as good as new: a pause of what is paused may be followed by another one under the same key.
	Route, Key, BodyHash string
	Match                domain.Match
}

// HashBody is what BodyHash holds.
func HashBody(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// request identifies everything that a caller's key stands for; empty without a key.
func (c Caller) request() string {
	if c.Key == "" {
		return ""
	}
	return events.DeriveID(string(c.Actor), c.Route, c.Key)
}

// Journal writes to the log. Safe for concurrent use.
type Journal struct{ bus *bus.Bus }

// New makes a journal on a connection.
func New(b *bus.Bus) *Journal { return &Journal{b} }

// begin bounds a request and refuses at once while the broker is away, where a call would wait for it.
func (j *Journal) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if !j.bus.Connected() {
		return nil, nil, fmt.Errorf("write to the log: %w", bus.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	return ctx, cancel, nil
}

// decision is what one look at an aggregate came to.
type decision struct {
	// fact to append; nil when nothing changes, and then sequence is what is stored already.
	fact     events.Payload
	sequence uint64
	// expected is the last sequence of the aggregate that was looked at.
	expected uint64
}

// subject is the aggregate that a write is about; fact is the one that a repeated request would have left.
type subject struct {
	aggregate events.Aggregate
	id, fact  string
	// unchecked appends the fact whatever others have written since it was decided. A kill is so: an exec that goes out in
	// small parts has facts faster than anybody reads them, and must be stopped all the same. It may come at any time, and
	// twice.
	unchecked bool
}

// write looks, decides and appends until nobody interferes. A request whose key has been used before is not decided
// again: it is answered with the fact that it left then.
func (j *Journal) write(ctx context.Context, c Caller, s subject, decide func(context.Context) (decision, error)) (uint64, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	meta, err := j.meta(ctx, c, s)
	if err != nil {
		return 0, err
	}
	for range attempts {
		if seq, err := j.repeated(ctx, c, s, meta.ID); err != nil || seq > 0 {
			return seq, err
		}
		d, err := decide(ctx)
		if err != nil {
			// The same request, sent twice, may have come through while this one looked, and be what it is refused for.
			if seq, again := j.repeated(ctx, c, s, meta.ID); again == nil && seq > 0 {
				return seq, nil
			}
			return 0, err
		}
		if d.fact == nil {
			return d.sequence, nil
		}
		if s.unchecked {
			d.expected = bus.Any
		}
		e, err := events.New(d.fact, meta)
		if err != nil {
			return 0, err
		}
		seq, err := j.append(ctx, e, d.expected)
		if !errors.Is(err, bus.ErrConflict) {
			return seq, err
		}
	}
	return 0, fmt.Errorf("write %s %s: %w", s.aggregate, s.id, ErrContended)
}

// meta is the envelope of a fact of this request. With a key the id is derived from caller, route, key, aggregate and
// body, so that doing it twice is doing it once.
func (j *Journal) meta(ctx context.Context, c Caller, s subject) (events.Meta, error) {
	now, err := j.bus.Now(ctx)
	if err != nil {
		return events.Meta{}, err
	}
	m := events.Meta{ID: uuid.NewString(), Source: source, Time: now, Actor: c.Actor, Origin: c.Origin, CorrelationID: c.request()}
	if m.CorrelationID != "" {
		m.ID = events.DeriveID(m.CorrelationID, string(s.aggregate), s.id, c.BodyHash)
	}
	return m, nil
}

func (j *Journal) append(ctx context.Context, e events.Event, expected uint64) (uint64, error) {
	seq, err := j.bus.Append(ctx, e, expected)
	if errors.Is(err, nats.ErrMaxPayload) {
		err = fmt.Errorf("%w: %w", err, &TooLarge{j.bus.Conn().MaxPayload()})
	}
	return seq, err
}

// repeated finds the fact that an earlier request with this key left; 0 if there is none. Another body under the same key
// is refused.
func (j *Journal) repeated(ctx context.Context, c Caller, s subject, id string) (uint64, error) {
	request := c.request()
	if request == "" {
		return 0, nil
	}
	filter := events.FactSubject(s.aggregate, s.id, s.fact)
	for from := uint64(1); ; {
		page, err := Page(ctx, j.bus, filter, from)
		if err != nil || len(page) == 0 {
			return 0, err
		}
		for _, m := range page {
			from = m.Seq + 1
			e, err := m.Event()
			if err != nil || e.CorrelationID != request {
				continue
			}
			if e.ID != id {
				return 0, domain.Repeated(c.Key, string(s.aggregate), s.id, m.Seq)
			}
			return m.Seq, nil
		}
	}
}

// current reads a document strongly. The whole aggregate is asked for first: whatever is appended after that makes the
// expected sequence stale, and the decision is made again.
func current[P events.Payload](ctx context.Context, b *bus.Bus, a events.Aggregate, id string) (domain.Current[P], error) {
	var cur domain.Current[P]
	fail := func(err error) (domain.Current[P], error) {
		return domain.Current[P]{}, fmt.Errorf("read %s %s: %w", a, id, err)
	}
	last, ok, err := b.Last(ctx, events.StreamLog, events.AggregateFilter(a, id))
	if err != nil {
		return fail(err)
	}
	if !ok {
		return cur, nil
	}
	cur.Last = last.Seq
	newest := last
	if f := last.Fact(); f != factSaved && f != factDeleted {
		newest = bus.Stored{}
		for _, fact := range []string{factSaved, factDeleted} {
			s, ok, err := b.Last(ctx, events.StreamLog, events.FactSubject(a, id, fact))
			if err != nil {
				return fail(err)
			}
			if ok && s.Seq > newest.Seq {
				newest = s
			}
		}
	}
	cur.Seq = newest.Seq
	if newest.Seq == 0 || newest.Fact() == factDeleted {
		return cur, nil
	}
	p, err := newest.Payload()
	if err != nil {
		return fail(err)
	}
	saved, ok := p.(P)
	if !ok {
		return fail(fmt.Errorf("sequence %d holds %s", newest.Seq, newest.Type))
	}
	cur.Saved = &saved
	return cur, nil
}

// only reads a document strongly whose aggregate has no other facts: the last one says what it is, or that there is none.
func only[P events.Payload](ctx context.Context, b *bus.Bus, a events.Aggregate, id string) (domain.Current[P], error) {
	last, ok, err := b.Last(ctx, events.StreamLog, events.AggregateFilter(a, id))
	if err != nil || !ok {
		return domain.Current[P]{}, err
	}
	p, err := last.Payload()
	if err != nil {
		return domain.Current[P]{}, fmt.Errorf("read %s %s: %w", a, id, err)
	}
	cur := domain.Current[P]{Seq: last.Seq, Last: last.Seq}
	if saved, is := p.(P); is {
		cur.Saved = &saved
	}
	return cur, nil
}

const (
	factCheckRequested = "check-requested"
	factPastRequested  = "past-requested"
	factSaved          = "saved"
	factDeleted        = "deleted"
	// A calendar's aggregate is one of "config", whose facts say their noun.
	factCalendarSaved   = "calendar-saved"
	factCalendarDeleted = "calendar-deleted"
	factGrouped         = "grouped"
	factRequested       = "requested"
	factRevoked         = "revoked"
	factUnrevoked       = "unrevoked"
	factCleared         = "cleared"
	factKilled          = "killed"
	factCancelled       = "cancelled"
	factPaused          = "paused"
	factResumed         = "resumed"
	factAdvanced        = "wave-advanced"
	factHalted          = "halted"
	factClosed          = "closed"
	factExpired         = "expired"
	factReduced         = "reduced"
	factPlanned         = "planned"
	factReleased        = "wave-released"
)
