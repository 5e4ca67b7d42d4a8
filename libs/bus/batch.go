package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// Batch reads at most limit stored messages with one direct get, in order; no consumer is left behind. What is read, and
// from where on, the options say. It may be answered by a follower that lags.
//
// It ends without an error only if the broker said that this is all: the client's own iterator ends in silence too when
// time is up or the connection is gone, and a reader would take the half for the whole, or nothing for "there is nothing".
// A lost connection ends it at once, with ErrUnavailable. Without a deadline in ctx it may take DefaultTimeout.
func (b *Bus) Batch(ctx context.Context, stream string, limit int, opts ...jetstreamext.GetBatchOpt) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return b.direct(ctx, func(ctx context.Context) (iter.Seq2[*jetstream.RawStreamMsg, error], error) {
		return jetstreamext.GetBatch(ctx, b.js, stream, limit, opts...)
	})
}

// direct reads what a direct get for many messages answers, as Batch does.
func (b *Bus) direct(
	ctx context.Context, get func(context.Context) (iter.Seq2[*jetstream.RawStreamMsg, error], error),
) iter.Seq2[*jetstream.RawStreamMsg, error] {
	return func(yield func(*jetstream.RawStreamMsg, error) bool) {
		session, release, err := b.ready(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		defer release()
		messages, err := get(session)
		if err != nil {
			yield(nil, unavailable(err))
			return
		}
		for m, err := range messages {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				return
			}
			if err != nil && session.Err() != nil {
				break
			}
			if !yield(m, unavailable(err)) || err != nil {
				return
			}
		}
		if err := session.Err(); err != nil {
			yield(nil, fmt.Errorf("%w: the batch broke off: %w", ErrUnavailable, err))
		}
	}
}
