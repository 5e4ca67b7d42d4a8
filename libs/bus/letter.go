package bus

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/events"
)

// Headers of a message that was appended anew because somebody retried its dead letter.
const (
	// HeaderRetryOf is the letter's sequence in DEAD, decimal.
	HeaderRetryOf = "Kanade-Retry-Of"
	// HeaderRetryActor is who retried it.
	HeaderRetryActor = "Kanade-Retry-Actor"
)

// headerRetryAfter is borne by the note of a retry: LOG's last sequence before the message was appended anew.
const headerRetryAfter = "Kanade-Retry-After-Sequence"

// Notes of retries lie in DEAD too, one a letter, on dead.retried.<the letter's sequence>. The subjects of letters have
// two tokens or four.
const retriedPrefix = "dead.retried."

// MaxLetters is the largest page of letters.
const MaxLetters = 500

const (
	// lettersScan bounds how many sequence numbers one page of letters looks at, whatever is found in them.
	lettersScan = 4096
	// lettersBytes bounds one answer of the broker, so that a page of large bodies does not drown the connection.
	lettersBytes = 8 << 20
)

// Letter is a message of DEAD.
type Letter struct {
	// Seq is its place in DEAD, ParkedAt when the broker stored it there, UTC.
	Seq      uint64
	ParkedAt time.Time
	// Handler gave it up; Reason is why, in one line.
	Handler, Reason string
	// Message is what was given up, with its own place, subject and headers but without its time. The body is nil in a page
	// of letters, and where it is Omitted.
	Message RawMsg
	// Size of the body in bytes, 0 where it is Omitted: too large to be carried twice, it is in its own stream only.
	Size    int
	Omitted bool
	// Retried is who has retried it first; nil if nobody has.
	Retried *Retried
}

// Retried says who has retried a letter, and when.
type Retried struct {
	Actor string
	At    time.Time
	after uint64
}

// Letters reads a page of DEAD by direct gets, newest first and without bodies: at most limit letters, and MaxLetters,
// of one handler, or with an empty name of all, that lie before a sequence (0: from the newest on). next continues it,
// 0 at the end. A page looks at some thousand letters at most: one that is short, or empty, is the last only if next is
// 0. A follower that lags may answer, and then the newest are missing. Errors: ErrUnavailable, ErrNotFound.
func (b *Bus) Letters(ctx context.Context, handler string, before uint64, limit int) (page []Letter, next uint64, err error) {
	fail := func(err error) ([]Letter, uint64, error) { return nil, 0, fmt.Errorf("list dead letters: %w", err) }
	first, last, err := b.bounds(ctx, events.StreamDead)
	if err != nil {
		return fail(err)
	}
	limit = min(limit, MaxLetters)
	end := last + 1 // of what is still to be looked at, exclusive
	if before > 0 {
		end = min(end, before)
	}
	lowest := max(first, 1)
	if end > lettersScan {
		lowest = max(lowest, end-lettersScan)
	}
	for window := limit; end > lowest && len(page) < limit; window = min(2*window, MaxLetters) {
		begin := max(lowest, end-min(end, uint64(window)))
		found, err := b.lettersWithin(ctx, handler, begin, end)
		if err != nil {
			return fail(err)
		}
		slices.Reverse(found)
		page, end = append(page, found...), begin
	}
	if len(page) > limit {
		page = page[:limit]
		end = page[limit-1].Seq
	}
	if err := b.addRetried(ctx, page); err != nil {
		return fail(err)
	}
	if end <= max(first, 1) {
		end = 0
	}
	return page, end, nil
}

// lettersWithin reads the letters of a handler from begin on and before end, oldest first.
func (b *Bus) lettersWithin(ctx context.Context, handler string, begin, end uint64) ([]Letter, error) {
	var found []Letter
	for more := true; more && begin < end; {
		more = false
		opts := []jetstreamext.GetBatchOpt{jetstreamext.GetBatchSeq(begin), jetstreamext.GetBatchMaxBytes(lettersBytes)}
		for m, err := range b.Batch(ctx, events.StreamDead, int(end-begin), opts...) {
			if err != nil {
				return nil, err
			}
			if m.Sequence >= end {
				return found, nil
			}
			begin, more = m.Sequence+1, true
			l, ok := letterOf(RawMsg{Subject: m.Subject, Seq: m.Sequence, Time: m.Time.UTC(), Header: m.Header, Data: m.Data})
			if ok && (handler == "" || l.Handler == handler) {
				l.Message.Data = nil
				found = append(found, l)
			}
		}
	}
	return found, nil
}

// addRetried reads the notes of a page of letters.
func (b *Bus) addRetried(ctx context.Context, page []Letter) error {
	if len(page) == 0 {
		return nil
	}
	subjects, of := make([]string, len(page)), map[string]*Letter{}
	for i := range page {
		subjects[i] = retriedSubject(page[i].Seq)
		of[subjects[i]] = &page[i]
	}
	get := func(ctx context.Context) (iter.Seq2[*jetstream.RawStreamMsg, error], error) {
		return jetstreamext.GetLastMsgsFor(ctx, b.js, events.StreamDead, subjects)
	}
	for m, err := range b.direct(ctx, get) {
		if err != nil {
			return err
		}
		if l := of[m.Subject]; l != nil {
			l.Retried = retriedOf(RawMsg{Time: m.Time.UTC(), Header: m.Header})
		}
	}
	return nil
}

// Letter reads one letter with its body from the stream's leader; false if there is none of that sequence.
func (b *Bus) Letter(ctx context.Context, seq uint64) (Letter, bool, error) {
	if seq == 0 { // which the broker takes for a bad request
		return Letter{}, false, nil
	}
	m, ok, err := b.Get(ctx, events.StreamDead, seq)
	if err != nil || !ok {
		return Letter{}, false, err
	}
	l, ok := letterOf(m)
	if !ok {
		return Letter{}, false, nil
	}
	l.Retried, err = b.retried(ctx, seq)
	return l, true, err
}

func (b *Bus) retried(ctx context.Context, seq uint64) (*Retried, error) {
	m, ok, err := b.LastRaw(ctx, events.StreamDead, retriedSubject(seq))
	if err != nil || !ok {
		return nil, err
	}
	return retriedOf(m), nil
}

// RetryLetter appends the message of a letter of LOG anew, at LOG's end and as it was: on its subject, with its headers
// and body, which an omitted one needs to have in Message.Data. It does not ask whether the message may come twice. The id
// of the copy is derived from the letter; a note in DEAD says who retried it before the copy is appended, so that a letter
// is appended once, however often and by whomever it is retried. again says that it had been retried before, and seq is
// then the copy's all the same. Errors: ErrLogFull, ErrUnavailable; after both it may be tried again.
func (b *Bus) RetryLetter(ctx context.Context, l Letter, actor string) (seq uint64, again bool, err error) {
	fail := func(err error) (uint64, bool, error) {
		return 0, false, fmt.Errorf("retry dead letter %d: %w", l.Seq, err)
	}
	id := events.DeriveID("DEAD", strconv.FormatUint(l.Seq, 10), l.ParkedAt.Format(time.RFC3339Nano))
	before, again, err := b.noteRetry(ctx, l, actor)
	if err != nil {
		return fail(err)
	}
	if again {
		seq, err := b.appended(ctx, l.Message.Subject, id, before.after)
		if err != nil {
			return fail(err)
		}
		if seq > 0 {
			return seq, true, nil
		}
	}
	m := &nats.Msg{Subject: l.Message.Subject, Header: nats.Header{}, Data: l.Message.Data}
	for name, values := range l.Message.Header {
		m.Header[name] = values
	}
	m.Header.Set(events.HeaderMsgID, id)
	m.Header.Set(HeaderRetryOf, strconv.FormatUint(l.Seq, 10))
	m.Header.Set(HeaderRetryActor, before.Actor)
	if seq, err = b.publish(ctx, m); err != nil {
		return fail(err)
	}
	return seq, again, nil
}

// noteRetry gives the note of a letter's retry, and makes it if there is none.
func (b *Bus) noteRetry(ctx context.Context, l Letter, actor string) (note Retried, again bool, err error) {
	if l.Retried != nil {
		return *l.Retried, true, nil
	}
	last, err := b.LastSeq(ctx, events.StreamLog)
	if err != nil {
		return Retried{}, false, err
	}
	note = Retried{Actor: headerValue(actor), after: last}
	_, err = b.publish(ctx, &nats.Msg{Subject: retriedSubject(l.Seq), Header: nats.Header{
		HeaderRetryActor: {note.Actor}, headerRetryAfter: {strconv.FormatUint(last, 10)},
	}}, jetstream.WithExpectLastSequencePerSubject(0))
	if !isWrongLastSequence(err) {
		return note, false, err
	}
	there, err := b.retried(ctx, l.Seq) // somebody else was faster
	if err != nil {
		return Retried{}, false, err
	}
	if there == nil {
		return Retried{}, false, fmt.Errorf("%w: its note has gone", ErrUnavailable)
	}
	return *there, true, nil
}

// appended looks for the copy of an id after a sequence; 0 if it is not there. That is one look for a retry that ended,
// for it is the first of its subject then, or nearly; for one that broke off, all that was appended there since.
func (b *Bus) appended(ctx context.Context, subject, id string, after uint64) (uint64, error) {
	if strings.HasPrefix(subject, events.PrefixResults) {
		subject = events.PrefixResults + "*" // the stream maps them to others
	}
	for more := true; more; {
		more = false
		for m, err := range b.Batch(ctx, events.StreamLog, loadPage, jetstreamext.GetBatchSubject(subject),
			jetstreamext.GetBatchSeq(after+1), jetstreamext.GetBatchMaxBytes(lettersBytes)) {
			if err != nil {
				return 0, err
			}
			if first(m.Header, events.HeaderMsgID) == id {
				return m.Sequence, nil
			}
			after, more = m.Sequence, true
		}
	}
	return 0, nil
}

// letterOf undoes Park; false for what is no letter.
func letterOf(m RawMsg) (Letter, bool) {
	seq, err := strconv.ParseUint(first(m.Header, HeaderDeadSequence), 10, 64)
	if err != nil || strings.HasPrefix(m.Subject, retriedPrefix) {
		return Letter{}, false
	}
	l := Letter{
		Seq: m.Seq, ParkedAt: m.Time,
		Handler: first(m.Header, HeaderDeadHandler), Reason: first(m.Header, HeaderDeadReason),
		Size: len(m.Data), Omitted: first(m.Header, HeaderDeadBody) != "",
		Message: RawMsg{
			Stream: first(m.Header, HeaderDeadStream), Subject: first(m.Header, HeaderDeadSubject), Seq: seq,
			Header: events.Header{}, Data: m.Data,
		},
	}
	for name, values := range m.Header {
		if !strings.HasPrefix(strings.ToLower(name), "nats-") && !strings.HasPrefix(name, "Kanade-Dead-") {
			l.Message.Header[name] = values
		}
	}
	return l, true
}

func retriedSubject(seq uint64) string { return retriedPrefix + strconv.FormatUint(seq, 10) }

func retriedOf(m RawMsg) *Retried {
	after, _ := strconv.ParseUint(first(m.Header, headerRetryAfter), 10, 64) // 0: it is looked for from the beginning
	return &Retried{Actor: first(m.Header, HeaderRetryActor), At: m.Time, after: after}
}
