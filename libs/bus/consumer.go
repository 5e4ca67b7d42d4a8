package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// DrainTimeout is how long a handler that runs when its router is stopped may go on before its context ends.
const DrainTimeout = 10 * time.Second

// defaultAckWait is how long the broker waits for a sign of life before it gives a message to somebody else.
const defaultAckWait = time.Second

// maxAckPending bounds the unsettled messages of one durable, those that wait for their next try included: so many may
// fail at once before a good one has to wait behind them.
const maxAckPending = 10_000

// Back-off of a message that a handler returned an error for.
const (
	firstRetry = 250 * time.Millisecond
	maxRetry   = 30 * time.Second
)

// retryDelay is how long a message waits that has been delivered n times (1 the first time): 250 ms, doubled each time,
// at most 30 s, for ever.
func retryDelay(n uint64) time.Duration {
	if n == 0 {
		n = 1
	}
	if n > 8 {
		return maxRetry
	}
	return min(firstRetry<<(n-1), maxRetry)
}

// progressInterval is how often a message that is worked on is kept from being given to somebody else: three signs an
// ack wait.
func progressInterval(ackWait time.Duration) time.Duration { return ackWait * 3 / 10 }

// prepare makes or updates the durable consumer want. Where an existing one began is left as it is: a broker refuses to
// change it. While the broker is away it tries again until ctx ends; what the broker refuses is an error.
func (b *Bus) prepare(ctx context.Context, stream string, want jetstream.ConsumerConfig) error {
	for wait := firstRetry; ; {
		err := b.ensureConsumer(ctx, stream, want)
		if err == nil || ctx.Err() != nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		b.logger.Warn("prepare consumer; trying again", "stream", stream, "consumer", want.Durable, "error", err)
		if wait = b.again(ctx, wait); ctx.Err() != nil {
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}

func (b *Bus) ensureConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) error {
	fail := func(err error) error {
		return fmt.Errorf("prepare consumer %s of %s: %w", want.Durable, stream, notFound(unavailable(err)))
	}
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return fail(err)
	}
	defer cancel()
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return fail(err)
	}
	if have, ok, err := consumerConfig(ctx, s, want.Durable); err != nil {
		return fail(err)
	} else if ok {
		want.DeliverPolicy, want.OptStartSeq = have.DeliverPolicy, have.OptStartSeq
	}
	if want.DeliverSubject != "" {
		_, err = s.CreateOrUpdatePushConsumer(ctx, want)
	} else {
		_, err = s.CreateOrUpdateConsumer(ctx, want)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// consumerConfig looks for a consumer of either kind.
func consumerConfig(ctx context.Context, s jetstream.Stream, name string) (jetstream.ConsumerConfig, bool, error) {
	pull, err := s.Consumer(ctx, name)
	if err == nil {
		return pull.CachedInfo().Config, true, nil
	}
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		push, err := s.PushConsumer(ctx, name)
		if err != nil {
			return jetstream.ConsumerConfig{}, false, err
		}
		return push.CachedInfo().Config, true, nil
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return jetstream.ConsumerConfig{}, false, nil
	}
	return jetstream.ConsumerConfig{}, false, err
}

// durable is what the consumers of both transports have in common. MaxDeliver stays unlimited: it counts deliveries to
// processes that died, and then the message is nowhere.
func durable(name string, filters []string, ackWait time.Duration, startSeq uint64) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable: name, FilterSubjects: slices.Clone(filters), AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver: -1, MaxAckPending: maxAckPending, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if startSeq > 0 {
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, startSeq
	}
	return c
}

func checkDurable(stream, name string) error {
	if stream == "" {
		return fmt.Errorf("subscribe %q: no stream", name)
	}
	if name == "" || strings.ContainsAny(name, " .*>/\\\t\r\n") {
		return fmt.Errorf("subscribe to %s: %q is no name for a durable consumer", stream, name)
	}
	return nil
}

// outlive gives a context that ends d after ctx does: handlers that run when it is time to stop may finish.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(d, cancel)
		context.AfterFunc(long, func() { timer.Stop() })
	})
	return long, func() { stop(); cancel() }
}
