package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	natsmill "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"

	"kanade/libs/events"
)

// PushConfig is for short work where one message at a time, in order, is right.
type PushConfig struct {
	// Stream to consume from.
	Stream string
	// Durable is the consumer's name; of several processes one at a time gets the messages.
	Durable string
	// Filters are the subjects; none means all of the stream.
	Filters []string
}

// PushSubscriber is the transport for short work in order, to be given to Router.Handle: watermill-nats over a push
// consumer with one message in flight, which keeps a message that is tried again before its followers. The consumer is
// made when the router runs, before watermill-nats binds to it, which would otherwise delete it when it closes. The
// topic of Subscribe is not used.
func (b *Bus) PushSubscriber(c PushConfig) (message.Subscriber, error) {
	if err := checkDurable(c.Stream, c.Durable); err != nil {
		return nil, err
	}
	return &pushSubscriber{bus: b, config: c, subscriptions: newSubscriptions()}, nil
}

type pushSubscriber struct {
	bus    *Bus
	config PushConfig
	subscriptions
}

func (s *pushSubscriber) prepare(ctx context.Context) error {
	c := durable(s.config.Durable, s.config.Filters, defaultAckWait, 0)
	c.MaxAckPending = 1
	c.DeliverSubject = "kanade.deliver." + s.config.Stream + "." + s.config.Durable
	c.DeliverGroup = s.config.Durable
	return s.bus.prepare(ctx, s.config.Stream, c)
}

// bind opens watermill-nats on the prepared consumer. The subscriber it gives is never closed: that would drain our
// connection; ending the context of Subscribe is enough.
func (s *pushSubscriber) bind(g *gate) (message.Subscriber, error) {
	return natsmill.NewSubscriberWithNatsConn(s.bus.nc, natsmill.SubscriberSubscriptionConfig{
		Unmarshaler: g, NakDelay: growingDelay{}, QueueGroupPrefix: s.config.Durable,
		// Ours is the time a handler may take; this one would only forget the message.
		AckWaitTimeout: 24 * time.Hour,
		JetStream: natsmill.JetStreamConfig{
			DurablePrefix: s.config.Durable, AckAsync: true,
			SubscribeOptions: []nats.SubOpt{nats.Bind(s.config.Stream, s.config.Durable), nats.ManualAck()},
		},
	}, watermill.NopLogger{})
}

type growingDelay struct{}

func (growingDelay) WaitTime(delivered uint64) time.Duration { return retryDelay(delivered) }

func (s *pushSubscriber) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	ctx, done := s.begin(ctx)
	go func() {
		defer done()
		defer close(out)
		for wait := firstRetry; ctx.Err() == nil; {
			if err := s.forward(ctx, out); err != nil {
				s.bus.logger.Warn("subscribe; trying again", "consumer", s.config.Durable, "error", err)
				wait = s.bus.again(ctx, wait)
			}
		}
	}()
	return out, nil
}

// forward hands over one message after the other until ctx ends. Then it lets no more in, waits for what is in, and
// only then ends watermill-nats' subscription: its callback must not be about to send when that closes the channel.
func (s *pushSubscriber) forward(ctx context.Context, out chan<- *message.Message) error {
	if err := s.prepare(ctx); err != nil {
		return quiet(ctx, err)
	}
	g := &gate{stream: s.config.Stream}
	inner, err := s.bind(g)
	if err != nil {
		return err
	}
	subscribed, unsubscribe := context.WithCancel(context.WithoutCancel(ctx))
	defer unsubscribe()
	in, err := inner.Subscribe(subscribed, "")
	if err != nil {
		return unavailable(err)
	}
	handling, cancel := outlive(ctx, DrainTimeout)
	defer cancel()
	received := 0
	for ctx.Err() == nil {
		select {
		case w, ok := <-in:
			if !ok {
				return errors.New("subscription ended")
			}
			received++
			s.deliver(ctx, handling, w, out)
		case <-ctx.Done():
		}
	}
	for passed := g.close(); received < passed; received++ {
		w := <-in
		w.Nack()
	}
	unsubscribe()
	for range in { // until it is closed
	}
	return nil
}

// deliver hands one message over and waits until it is settled, which watermill-nats then tells the broker.
func (s *pushSubscriber) deliver(ctx, handling context.Context, w *message.Message, out chan<- *message.Message) {
	w.SetContext(handling)
	reply := w.Metadata[metadataReply]
	select {
	case out <- w:
	case <-ctx.Done():
		w.Nack()
		return
	}
	_, done := hold(handling, w, progressInterval(defaultAckWait), func() {
		if err := s.bus.nc.Publish(reply, []byte("+WPI")); err != nil {
			s.bus.logger.Debug("acknowledge", "consumer", s.config.Durable, "error", err)
		}
	})
	if !done {
		w.Nack()
	}
}

// gate is watermill-nats' unmarshaler: it never fails on a message, and it knows how many were let in.
type gate struct {
	stream string
	mu     sync.Mutex
	closed bool
	passed int
}

var errClosing = errors.New("subscriber is closing")

// Unmarshal implements natsmill.Unmarshaler. A message that is refused because we are closing stays unacknowledged.
func (g *gate) Unmarshal(m *nats.Msg) (*message.Message, error) {
	raw := RawMsg{Stream: g.stream, Subject: m.Subject, Header: events.Header(m.Header), Data: m.Data}
	var delivered uint64
	if meta, err := m.Metadata(); err == nil { // always, from a JetStream consumer
		raw.Seq, raw.Time, delivered = meta.Sequence.Stream, meta.Timestamp.UTC(), meta.NumDelivered
	}
	w := newMessage(raw, delivered)
	w.Metadata[metadataReply] = m.Reply
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errClosing
	}
	g.passed++
	return w, nil
}

func (g *gate) close() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return g.passed
}
