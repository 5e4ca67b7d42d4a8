package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// Numbers of the broker's errors for a message that is not there to be removed.
const (
	errNoSequence   = 10043
	errDeleteFailed = 10057
)

// Purge takes the facts of one aggregate that a filter names and that lie before a sequence out of the log, and returns how
// many there were. What is appended afterwards lies behind the sequence and is safe. It is for housekeeping alone: what the
// log does not hold was never said.
//
// The filter begins with "events.", an aggregate and an id, so that no slip takes more than that one; the sequence is at
// least 1. None there is no error, so that it is safe to repeat. Errors: ErrUnavailable.
func (b *Bus) Purge(ctx context.Context, filter string, before uint64) (int, error) {
	parts := strings.Split(filter, ".")
	if len(parts) < 4 || parts[0] != "events" || strings.ContainsAny(parts[1]+parts[2], "*>") || before == 0 {
		return 0, fmt.Errorf("purge %s before %d: it names more than one aggregate, or no sequence", filter, before)
	}
	var answer struct {
		Purged int `json:"purged"`
	}
	request := struct {
		Filter string `json:"filter"`
		Seq    uint64 `json:"seq"`
	}{filter, before}
	if err := b.api(ctx, "STREAM.PURGE."+events.StreamLog, request, &answer); err != nil {
		return 0, fmt.Errorf("purge %s before %d: %w", filter, before, notFound(err))
	}
	return answer.Purged, nil
}

// Delete takes one message out of the log, and reports whether it was there. It is for housekeeping alone, as Purge is.
func (b *Bus) Delete(ctx context.Context, seq uint64) (bool, error) {
	err := b.DeleteMessage(ctx, events.StreamLog, seq)
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == errNoSequence || api.ErrorCode == errDeleteFailed || api.ErrorCode == errNoMessage) {
		return false, nil
	}
	return err == nil, err
}
