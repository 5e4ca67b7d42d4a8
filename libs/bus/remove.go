package bus

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// Numbers of the broker's errors for a message that is not there to be removed.
const (
	errNoSequence   = 10043
	errDeleteFailed = 10057
)

// Delete takes one message out of the log, and reports whether it was there, so that it is safe to repeat. It is for
// housekeeping alone: what the log does not hold was never said. Errors: ErrUnavailable.
//
// There is no deletion by subject. The broker's (2.15) holds the stream's lock while it looks at every block between the
// subject's first message and its last, and reads those that it does not hold in memory: for an exec that is 90 days of the log.
func (b *Bus) Delete(ctx context.Context, seq uint64) (bool, error) {
	err := b.DeleteMessage(ctx, events.StreamLog, seq)
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == errNoSequence || api.ErrorCode == errDeleteFailed || api.ErrorCode == errNoMessage) {
		return false, nil
	}
	return err == nil, err
}
