package bus

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/events"
)

// loadPage is how many messages one request of Load asks for.
const loadPage = 500

// Limits of one request of Walk: messages, and bytes together. Requests of execs bear whole scripts.
const (
	walkMessages = 256
	walkBytes    = 4 << 20
)

// RawMsg is a stored message of any stream.
type RawMsg struct {
	Stream, Subject string
	Seq             uint64
	// Time is when the broker stored it, by its own clock, UTC.
	Time   time.Time
	Header events.Header
	Data   []byte
}

// Event reads the message as a fact of the log. The error is an *events.DecodeError.
func (m RawMsg) Event() (events.Event, error) { return events.Decode(m.Subject, m.Header, m.Data) }

// Stored is Event with its place in the log.
func (m RawMsg) Stored() (Stored, error) {
	e, err := m.Event()
	if err != nil {
		return Stored{}, err
	}
	return Stored{Event: e, Seq: m.Seq, StoredAt: m.Time, RawSubject: m.Subject}, nil
}

// Load reads every fact of one aggregate after a sequence (0: all), in log order. It may be answered by a follower that
// lags, and serves where a check follows: the sequence of the last fact is what Append expects. About a millisecond for
// ten facts. One fact that can't be decoded fails the whole, with its *events.DecodeError.
func (b *Bus) Load(ctx context.Context, a events.Aggregate, id string, after uint64) ([]Stored, error) {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return nil, fmt.Errorf("load %s %q: %w", a, id, err)
	}
	defer cancel()
	var all []Stored
	for {
		page, err := b.loadPage(ctx, events.AggregateFilter(a, id), after)
		if err != nil {
			return nil, fmt.Errorf("load %s %q: %w", a, id, err)
		}
		if len(page) == 0 {
			return all, nil
		}
		all = append(all, page...)
		after = page[len(page)-1].Seq
	}
}

// loadPage gives at least one message if there is one.
func (b *Bus) loadPage(ctx context.Context, filter string, after uint64) ([]Stored, error) {
	var page []Stored
	for m, err := range b.Batch(ctx, events.StreamLog, loadPage, jetstreamext.GetBatchSubject(filter), jetstreamext.GetBatchSeq(after+1)) {
		if err != nil {
			return nil, err
		}
		s, err := directRaw(m).Stored()
		if err != nil {
			return nil, err
		}
		page = append(page, s)
	}
	return page, nil
}

// LastFacts reads the newest fact of each kind of one aggregate, in log order. It costs the broker an index, not the search
// that Load is. It may be answered by a follower that lags. One fact that can't be decoded fails the whole, with its
// *events.DecodeError.
func (b *Bus) LastFacts(ctx context.Context, a events.Aggregate, id string) ([]Stored, error) {
	var all []Stored
	get := func(ctx context.Context) (iter.Seq2[*jetstream.RawStreamMsg, error], error) {
		return jetstreamext.GetLastMsgsFor(ctx, b.js, events.StreamLog, []string{events.AggregateFilter(a, id)})
	}
	for m, err := range b.direct(ctx, get) {
		if err != nil {
			return nil, fmt.Errorf("read last facts of %s %q: %w", a, id, err)
		}
		s, err := directRaw(m).Stored()
		if err != nil {
			return nil, fmt.Errorf("read last facts of %s %q: %w", a, id, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// directRaw is a message of a direct get from the log.
func directRaw(m *jetstream.RawStreamMsg) RawMsg {
	return RawMsg{Stream: events.StreamLog, Subject: m.Subject, Seq: m.Sequence, Time: m.Time.UTC(), Header: events.Header(m.Header), Data: m.Data}
}

// Walk reads the log's messages of a subject filter in order, from a sequence on, until look says that it has seen enough.
// It leaves nothing at the broker and holds a page at a time; what it reads meanwhile may go. It may be answered by a
// follower that lags, and serves where what matters is old.
func (b *Bus) Walk(ctx context.Context, filter string, from uint64, look func(RawMsg) (more bool, err error)) error {
	for next := max(from, 1); ; {
		page, err := b.walkPage(ctx, filter, next)
		if err != nil {
			return fmt.Errorf("walk %s from %d: %w", filter, next, err)
		}
		if len(page) == 0 {
			return nil
		}
		for _, m := range page {
			if more, err := look(m); err != nil || !more {
				return err
			}
		}
		next = page[len(page)-1].Seq + 1
	}
}

// walkPage gives at least one message if there is one.
func (b *Bus) walkPage(ctx context.Context, filter string, from uint64) ([]RawMsg, error) {
	var page []RawMsg
	for m, err := range b.Batch(ctx, events.StreamLog, walkMessages,
		jetstreamext.GetBatchSubject(filter), jetstreamext.GetBatchSeq(from), jetstreamext.GetBatchMaxBytes(walkBytes)) {
		if err != nil {
			return nil, err
		}
		page = append(page, directRaw(m))
	}
	return page, nil
}

// Last is the newest fact on a subject, which may hold wildcards; false if there is none. The stream's leader answers:
// what it says was true when it answered. Errors: ErrUnavailable, ErrNotFound (no such stream), *events.DecodeError.
func (b *Bus) Last(ctx context.Context, stream, subject string) (Stored, bool, error) {
	m, ok, err := b.LastRaw(ctx, stream, subject)
	if err != nil || !ok {
		return Stored{}, false, err
	}
	s, err := m.Stored()
	if err != nil {
		return Stored{}, false, fmt.Errorf("read last of %s: %w", subject, err)
	}
	return s, true, nil
}

// LastRaw is Last for streams that hold something else than facts.
func (b *Bus) LastRaw(ctx context.Context, stream, subject string) (RawMsg, bool, error) {
	m, ok, err := b.getRaw(ctx, stream, getRequest{LastFor: subject})
	if subject == ">" && err == nil && !ok {
		// The broker (2.15) looks at nothing but the stream's very last sequence then, and says the same when that one message
		// has been deleted. Any other filter finds what is left; none of our subjects is a single token.
		m, ok, err = b.getRaw(ctx, stream, getRequest{LastFor: "*.>"})
	}
	if err != nil {
		return RawMsg{}, false, fmt.Errorf("read last of %s: %w", subject, err)
	}
	return m, ok, nil
}

// Get reads one message from the stream's leader; false if there is none of that sequence.
func (b *Bus) Get(ctx context.Context, stream string, seq uint64) (RawMsg, bool, error) {
	m, ok, err := b.getRaw(ctx, stream, getRequest{Seq: seq})
	if err != nil {
		return RawMsg{}, false, fmt.Errorf("read %s %d: %w", stream, seq, err)
	}
	return m, ok, nil
}

// StoredAt reports whether a stream may be the one that stored its message of a sequence at a time: false where it holds another
// one there. It was emptied then, or restored from a backup, and what was read of it before is of another stream. A message
// that is there no longer, or not yet, tells nothing: true.
func (b *Bus) StoredAt(ctx context.Context, stream string, seq uint64, at time.Time) (bool, error) {
	m, found, err := b.Get(ctx, stream, seq)
	return err == nil && (!found || m.Time.Equal(at)), err
}

// Next reads the first message of a stream from a sequence on, from the stream's leader; false if there is none.
func (b *Bus) Next(ctx context.Context, stream string, from uint64) (RawMsg, bool, error) {
	m, ok, err := b.getRaw(ctx, stream, getRequest{Seq: from, NextFor: ">"})
	if err != nil {
		return RawMsg{}, false, fmt.Errorf("read %s from %d: %w", stream, from, err)
	}
	return m, ok, nil
}

// LastSeq is the stream's last sequence, from its leader; 0 for a stream that never held anything.
func (b *Bus) LastSeq(ctx context.Context, stream string) (uint64, error) {
	_, last, err := b.bounds(ctx, stream)
	return last, err
}

// Share is how much of its byte limit a stream holds, 0 to 1; 0 for one without a limit.
func (b *Bus) Share(ctx context.Context, stream string) (float64, error) {
	info, err := b.info(ctx, stream)
	if err != nil || info.Config.MaxBytes <= 0 {
		return 0, err
	}
	return float64(info.State.Bytes) / float64(info.Config.MaxBytes), nil
}

// LastAt is the sequence of the last message that a stream had stored at a time, as its leader says; false if there was none
// yet. It halves the stream again and again, which takes some thirty reads of one message each.
func (b *Bus) LastAt(ctx context.Context, stream string, at time.Time) (seq uint64, ok bool, err error) {
	first, last, err := b.bounds(ctx, stream)
	if err != nil {
		return 0, false, err
	}
	low, high := first, last+1 // between them is the first sequence from which on all are later
	for low < high {
		middle := low + (high-low)/2
		m, found, err := b.Next(ctx, stream, middle)
		switch {
		case err != nil:
			return 0, false, err
		case !found || m.Time.After(at):
			high = middle
		default:
			low = m.Seq + 1
		}
	}
	return low - 1, low > first, nil
}

// streamInfo is what is asked for of an answer to STREAM.INFO.
type streamInfo struct {
	Config struct {
		MaxBytes int64 `json:"max_bytes"`
	} `json:"config"`
	State struct {
		First uint64 `json:"first_seq"`
		Last  uint64 `json:"last_seq"`
		Bytes uint64 `json:"bytes"`
	} `json:"state"`
}

// info describes a stream, as its leader does.
func (b *Bus) info(ctx context.Context, stream string) (info streamInfo, err error) {
	if err := b.api(ctx, "STREAM.INFO."+stream, struct{}{}, &info); err != nil {
		return info, fmt.Errorf("read state of stream %s: %w", stream, notFound(err))
	}
	return info, nil
}

// bounds are the first and last sequence of a stream. An empty stream's first is its last + 1, or 0 if it never held
// anything.
func (b *Bus) bounds(ctx context.Context, stream string) (first, last uint64, err error) {
	info, err := b.info(ctx, stream)
	return info.State.First, info.State.Last, err
}

// getRequest is the body of STREAM.MSG.GET.
type getRequest struct {
	Seq     uint64 `json:"seq,omitempty"`
	LastFor string `json:"last_by_subj,omitempty"`
	NextFor string `json:"next_by_subj,omitempty"`
}

// getRaw asks the leader; the client's own methods take the direct get where the stream allows it, and a follower may
// answer that.
func (b *Bus) getRaw(ctx context.Context, stream string, r getRequest) (RawMsg, bool, error) {
	var answer struct {
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  string    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	err := b.api(ctx, "STREAM.MSG.GET."+stream, r, &answer)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == errNoMessage {
		return RawMsg{}, false, nil
	}
	if err != nil {
		return RawMsg{}, false, notFound(err)
	}
	m := answer.Message
	raw := RawMsg{Stream: stream, Subject: m.Subject, Seq: m.Seq, Time: m.Time.UTC(), Data: m.Data}
	if m.Header == "" {
		return raw, true, nil
	}
	head, err := base64.StdEncoding.DecodeString(m.Header)
	if err != nil {
		return RawMsg{}, false, fmt.Errorf("decode headers of %s %d: %w", stream, m.Seq, err)
	}
	h, err := nats.DecodeHeadersMsg(head)
	if err != nil {
		return RawMsg{}, false, fmt.Errorf("decode headers of %s %d: %w", stream, m.Seq, err)
	}
	raw.Header = events.Header(h)
	return raw, true, nil
}

// notFound marks the errors that say that a stream does not exist.
func notFound(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
