package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// A pull request waits this long at the broker, which shows that it lives that often. Neither bounds how soon a message
// is delivered.
const (
	pullExpires   = 5 * time.Minute
	pullHeartbeat = 30 * time.Second
)

// PullConfig is for work that may take long. Every worker of every process fetches one message when it is free, so that
// a huge piece of work never stands before an urgent one while somebody idles.
type PullConfig struct {
	// Stream to consume from.
	Stream string
	// Durable is the consumer's name; processes of the same name share the work.
	Durable string
	// Filters are the subjects; none means all of the stream.
	Filters []string
	// Workers of this process; 0 means 1. With more than one the order is lost.
	Workers int
	// AckWait is how long after the death of a process its message goes to another one; 0 means 1 s. While a handler
	// runs it is extended three times in that time.
	AckWait time.Duration
	// StartSeq is the first sequence wanted when the consumer is made, 0 the stream's first. An existing consumer goes
	// on where it was. A work queue takes none.
	StartSeq uint64
}

// PullSubscriber is the transport for work that may take long, to be given to Router.Handle. The consumer is made when
// the router runs. The topic of Subscribe is not used.
func (b *Bus) PullSubscriber(c PullConfig) (message.Subscriber, error) {
	if err := checkDurable(c.Stream, c.Durable); err != nil {
		return nil, err
	}
	if c.Workers <= 0 {
		c.Workers = 1
	}
	if c.AckWait <= 0 {
		c.AckWait = defaultAckWait
	}
	return &pullSubscriber{bus: b, config: c, subscriptions: newSubscriptions()}, nil
}

type pullSubscriber struct {
	bus    *Bus
	config PullConfig
	subscriptions
}

func (s *pullSubscriber) prepare(ctx context.Context) error {
	c := durable(s.config.Durable, s.config.Filters, s.config.AckWait, s.config.StartSeq)
	return s.bus.prepare(ctx, s.config.Stream, c)
}

func (s *pullSubscriber) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	ctx, done := s.begin(ctx)
	handling, cancel := outlive(ctx, DrainTimeout)
	var workers sync.WaitGroup
	for range s.config.Workers {
		workers.Go(func() { s.work(ctx, handling, out) })
	}
	go func() {
		workers.Wait()
		cancel()
		close(out)
		done()
	}()
	return out, nil
}

// work handles one message after the other until ctx ends; a message that is being handled then is waited for as long
// as the context handling lasts.
func (s *pullSubscriber) work(ctx, handling context.Context, out chan<- *message.Message) {
	var consumer jetstream.Consumer
	wait := firstRetry
	for ctx.Err() == nil {
		var err error
		if consumer == nil {
			consumer, err = s.open(ctx)
		}
		var m jetstream.Msg
		if err == nil {
			m, err = s.fetch(ctx, consumer)
		}
		if err != nil {
			s.bus.logger.Warn("fetch; trying again", "consumer", s.config.Durable, "error", err)
			consumer = nil // it may be gone
			wait = s.bus.again(ctx, wait)
			continue
		}
		wait = firstRetry
		if m != nil {
			s.deliver(ctx, handling, m, out)
		}
	}
}

func (s *pullSubscriber) open(ctx context.Context) (jetstream.Consumer, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, quiet(ctx, err)
	}
	ctx, cancel, err := s.bus.ready(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return s.bus.js.Consumer(ctx, s.config.Stream, s.config.Durable)
}

// fetch waits for one message; nil without an error says to ask again.
func (s *pullSubscriber) fetch(ctx context.Context, consumer jetstream.Consumer) (jetstream.Msg, error) {
	session, release, err := s.bus.connected(ctx)
	if err != nil || consumer == nil {
		return nil, quiet(ctx, err)
	}
	defer release()
	waiting, cancel := context.WithTimeout(session, pullExpires)
	defer cancel()
	batch, err := consumer.Fetch(1, jetstream.FetchContext(waiting), jetstream.FetchHeartbeat(pullHeartbeat))
	if err != nil {
		return nil, quiet(waiting, err)
	}
	for m := range batch.Messages() {
		return m, nil
	}
	return nil, quiet(waiting, batch.Error())
}

// quiet drops an error that only says that ctx has ended.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *pullSubscriber) deliver(ctx, handling context.Context, m jetstream.Msg, out chan<- *message.Message) {
	meta, err := m.Metadata()
	if err != nil {
		s.bus.logger.Error("message without metadata", "consumer", s.config.Durable, "error", err)
		return
	}
	w := newMessage(RawMsg{
		Stream: meta.Stream, Subject: m.Subject(), Seq: meta.Sequence.Stream, Time: meta.Timestamp.UTC(),
		Header: events.Header(m.Headers()), Data: m.Data(),
	}, meta.NumDelivered)
	w.SetContext(handling)
	select {
	case out <- w:
	case <-ctx.Done():
		s.settled(m.Nak()) // nobody has seen it
		return
	}
	acked, done := hold(handling, w, progressInterval(s.config.AckWait), func() { s.settled(m.InProgress()) })
	switch {
	case acked:
		s.settled(m.Ack())
	case done:
		s.settled(m.NakWithDelay(retryDelay(meta.NumDelivered)))
	default:
		s.settled(m.Nak())
	}
}

// settled notes that an acknowledgement did not go out: the message comes again.
func (s *pullSubscriber) settled(err error) {
	if err != nil {
		s.bus.logger.Debug("acknowledge", "consumer", s.config.Durable, "error", err)
	}
}

// subscriptions ends what a subscriber has going when it is closed.
type subscriptions struct {
	closing context.Context
	close   context.CancelFunc
	running *sync.WaitGroup
}

func newSubscriptions() subscriptions {
	ctx, cancel := context.WithCancel(context.Background())
	return subscriptions{closing: ctx, close: cancel, running: &sync.WaitGroup{}}
}

// begin registers one subscription; its context ends with ctx or when the subscriber is closed. It has no deadline: the
// client would shorten its requests to that and then finds them too short for their heartbeat.
func (s subscriptions) begin(ctx context.Context) (context.Context, func()) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stopOuter := context.AfterFunc(ctx, cancel)
	stopClosing := context.AfterFunc(s.closing, cancel)
	s.running.Add(1)
	return own, func() {
		stopOuter()
		stopClosing()
		cancel()
		s.running.Done()
	}
}

// Close implements message.Subscriber: it waits until nothing is in flight any more.
func (s subscriptions) Close() error {
	s.close()
	s.running.Wait()
	return nil
}
