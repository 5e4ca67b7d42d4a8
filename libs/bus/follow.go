package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// DefaultBatch is the largest batch of Follow where none is given.
const DefaultBatch = 2000

// followBytes bounds how many bytes the broker sends ahead of the reader.
const followBytes = 16 << 20

// FollowConfig says what to follow.
type FollowConfig struct {
	// Stream to read.
	Stream string
	// From is the first sequence wanted: the reader's checkpoint + 1. 0 and 1 both mean whatever the stream holds, from its
	// beginning; a later one is a promise that everything before it is known.
	From uint64
	// KnownAt is when the broker stored the message before From, the last one the reader knows: a stream that holds another
	// one there is not the one that was read (LogReset). Zero means unknown: what the stream holds there at the start is
	// taken for it.
	KnownAt time.Time
	// Filters are the subjects; none means all of the stream.
	Filters []string
	// LastPerSubject begins with the newest message of each subject, in order, instead of From; what comes later comes
	// all.
	LastPerSubject bool
	// MaxBatch is the largest number of messages of one call; 0 means DefaultBatch.
	MaxBatch int
	// Name is for the log and the broker's monitoring.
	Name string
}

// LogPruned says that messages between the reader's checkpoint and the stream's first one are gone: it has to begin
// anew, from a snapshot or from the beginning.
type LogPruned struct {
	Stream      string
	From, First uint64
}

func (e *LogPruned) Error() string {
	return fmt.Sprintf("stream %s begins at sequence %d, %d is gone", e.Stream, e.First, e.From)
}

// LogReset says that the stream ends before the reader's checkpoint, or holds another message there than the reader
// knows: it is another one, or it was restored from a backup or cut by a power loss, and may have grown since. The reader
// has to begin anew.
type LogReset struct {
	Stream     string
	From, Last uint64
}

func (e *LogReset) Error() string {
	if e.Last+1 >= e.From {
		return fmt.Sprintf("stream %s holds another message at sequence %d than was read: it is another one, or it was restored", e.Stream, e.From-1)
	}
	return fmt.Sprintf("stream %s ends at sequence %d, before %d: it is another one, or it was restored", e.Stream, e.Last, e.From)
}

// Follow reads a stream in order and calls fn with batches: whatever waits, 1 to MaxBatch messages, one call at a time,
// each message once. It blocks until ctx ends (then nil) or fn returns an error, which comes back as it is: the reader
// stops where it is. It survives the broker's restarts by going on after the last message it has handed over. At the
// start and after every lost connection it checks that the stream still is what the reader knows, by its ends and by the
// last message known, if that is still there: *LogPruned, *LogReset. A stream that does not exist is ErrNotFound; what the broker refuses (a bad filter, too many consumers) is an
// error as well. The messages belong to fn.
//
// Every Follow costs the broker a consumer while it runs: a few per process, never one per request.
func (b *Bus) Follow(ctx context.Context, c FollowConfig, fn func(ctx context.Context, batch []RawMsg) error) error {
	if c.MaxBatch <= 0 {
		c.MaxBatch = DefaultBatch
	}
	f := &follower{bus: b, config: c, next: max(c.From, 1), known: c.KnownAt, fn: fn}
	for wait := firstRetry; ctx.Err() == nil; {
		before := f.next
		err := f.session(ctx)
		if f.failed != nil {
			return f.failed
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil && isFinal(err) {
			return fmt.Errorf("follow %s: %w", c.Stream, err)
		}
		if f.next > before {
			wait = firstRetry
		}
		if err != nil {
			b.logger.Warn("follow; trying again", "name", c.Name, "stream", c.Stream, "next", f.next, "error", err)
			wait = b.again(ctx, wait)
		}
	}
	return nil
}

func isFinal(err error) bool {
	var pruned *LogPruned
	var reset *LogReset
	var api *jetstream.APIError
	return errors.As(err, &pruned) || errors.As(err, &reset) || errors.Is(err, ErrNotFound) ||
		errors.As(err, &api) && api.Code == 400
}

// follower is one call of Follow: a session lasts as long as one connection.
type follower struct {
	bus    *Bus
	config FollowConfig
	fn     func(context.Context, []RawMsg) error
	next   uint64    // first sequence not handed over yet
	known  time.Time // when the broker stored the one before; zero: unknown
	begun  bool      // something was handed over
	failed error     // what fn returned
}

// session reads until the connection is lost or something is out of order. The consumer is one of the stream's ends
// that acknowledges nothing; its own count shows a gap, as the client's ordered consumer has it, which however goes on
// without looking whether the stream is still the same one.
func (f *follower) session(ctx context.Context) error {
	session, release, err := f.bus.connected(ctx)
	if err != nil {
		return err
	}
	defer release()
	consumer, err := f.open(session)
	if err != nil {
		return err
	}
	defer f.remove(consumer.CachedInfo().Name)
	// A stream that is replaced takes its consumers along, so what is checked is what will be read.
	if err := f.check(session); err != nil {
		return err
	}
	read := make(chan RawMsg, f.config.MaxBatch)
	broken := make(chan error, 1)
	fail := func(err error) {
		select {
		case broken <- err:
		default:
		}
	}
	messages, err := consumer.Consume(f.reader(session, read, fail),
		jetstream.PullMaxMessagesWithBytesLimit(2*f.config.MaxBatch, followBytes), jetstream.PullExpiry(pullExpires),
		jetstream.PullHeartbeat(pullHeartbeat), jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { fail(err) }))
	if err != nil {
		return unavailable(err)
	}
	defer func() { // the reader ends before the consumer is removed
		release()
		messages.Stop()
		<-messages.Closed()
	}()
	for {
		select {
		case m := <-read:
			if err := f.hand(ctx, m, read); err != nil {
				f.failed = err
				return nil
			}
		case err := <-broken:
			return quiet(session, err)
		case <-session.Done():
			return nil
		}
	}
}

// hand calls fn with m and what waits behind it.
func (f *follower) hand(ctx context.Context, m RawMsg, read <-chan RawMsg) error {
	batch := append(make([]RawMsg, 0, 1+min(len(read), f.config.MaxBatch-1)), m)
	for len(batch) < f.config.MaxBatch && len(read) > 0 {
		batch = append(batch, <-read) // its only receiver: this never blocks
	}
	if err := f.fn(ctx, batch); err != nil {
		return err
	}
	last := batch[len(batch)-1]
	f.next, f.known, f.begun = last.Seq+1, last.Time, true
	return nil
}

// reader passes messages on in order until the session ends or one is missing.
func (f *follower) reader(session context.Context, out chan<- RawMsg, fail func(error)) jetstream.MessageHandler {
	var last uint64
	return func(m jetstream.Msg) {
		meta, err := m.Metadata()
		if err == nil && meta.Sequence.Consumer != last+1 {
			err = fmt.Errorf("message %d of the consumer came as %d", last+1, meta.Sequence.Consumer)
		}
		if err != nil {
			fail(err)
			return
		}
		last++
		raw := RawMsg{
			Stream: meta.Stream, Subject: m.Subject(), Seq: meta.Sequence.Stream, Time: meta.Timestamp.UTC(),
			Header: events.Header(m.Headers()), Data: m.Data(),
		}
		select {
		case out <- raw:
		case <-session.Done():
		}
	}
}

// check compares the stream with what the reader knows of it.
func (f *follower) check(ctx context.Context) error {
	first, last, err := f.bus.bounds(ctx, f.config.Stream)
	if err != nil {
		return err
	}
	reset := &LogReset{Stream: f.config.Stream, From: f.next, Last: last}
	if last+1 < f.next {
		return reset
	}
	if f.next > 1 && first > f.next && !f.config.LastPerSubject {
		return &LogPruned{Stream: f.config.Stream, From: f.next, First: first}
	}
	if f.next == 1 {
		return nil
	}
	m, found, err := f.bus.Get(ctx, f.config.Stream, f.next-1)
	if err != nil || !found { // gone by housekeeping
		return err
	}
	if f.known.IsZero() {
		f.known = m.Time
	}
	if !m.Time.Equal(f.known) {
		return reset
	}
	return nil
}

// open is not interrupted when it is time to end: what it makes must be known to be removed.
func (f *follower) open(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DefaultTimeout)
	defer cancel()
	c := jetstream.ConsumerConfig{
		Description: f.config.Name, FilterSubjects: f.config.Filters, AckPolicy: jetstream.AckNonePolicy, MaxDeliver: 1, MemoryStorage: true, Replicas: 1,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: f.next,
		// If removing it fails, the broker removes it.
		InactiveThreshold: 2 * pullHeartbeat,
	}
	if f.config.LastPerSubject && !f.begun {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverLastPerSubjectPolicy, 0
		if len(c.FilterSubjects) == 0 {
			c.FilterSubjects = []string{">"} // the policy demands a filter
		}
	}
	consumer, err := f.bus.js.CreateConsumer(ctx, f.config.Stream, c)
	if err != nil {
		return nil, notFound(unavailable(err))
	}
	return consumer, nil
}

// remove does not wait for a broker that is away: the broker forgets the consumer by itself.
func (f *follower) remove(name string) {
	if !f.bus.Connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := f.bus.js.DeleteConsumer(ctx, f.config.Stream, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		f.bus.logger.Debug("remove consumer", "stream", f.config.Stream, "error", err)
	}
}
