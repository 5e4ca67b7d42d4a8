package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// MaxBatch bounds what PublishBatch takes at once: nothing holds the publisher back but the end of a batch.
const MaxBatch = 1000

// Operations of a fast batch.
const (
	batchStart = iota
	batchAppend
	batchCommit
)

// PublishBatch publishes messages in order, with one acknowledgement for all of them (the fast batches of ADR-50), which
// spares the broker and us the work of as many answers. The stream must allow it (events.Stream.AllowBatch). What the
// broker has as a double counts as stored. After an error, a *PublishError, some may have been stored and others not:
// look before repeating it, because every live subscriber hears a message each time. Without a deadline in ctx it may
// take DefaultTimeout.
//
// The library's own publisher is not used: where an answer is late it sends empty messages to the batch's subject, and
// endpoints hear what is sent to the subjects of commands.
func (b *Bus) PublishBatch(ctx context.Context, msgs []*nats.Msg) error {
	if len(msgs) > MaxBatch {
		return fmt.Errorf("publish a batch of %d messages: the limit is %d", len(msgs), MaxBatch)
	}
	if len(msgs) == 0 {
		return nil
	}
	stored, err := b.publishBatch(ctx, msgs)
	if err != nil {
		return &PublishError{Total: len(msgs), Failed: len(msgs) - stored, Err: unavailable(err)}
	}
	return nil
}

// publishBatch says how many of the first messages are known to be stored.
func (b *Bus) publishBatch(ctx context.Context, msgs []*nats.Msg) (stored int, err error) {
	session, release, err := b.ready(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	inbox := b.nc.NewInbox()
	answers, err := b.nc.SubscribeSync(inbox + ".>")
	if err != nil {
		return 0, err
	}
	defer func() { _ = answers.Unsubscribe() }()
	prefix := inbox + "." + strconv.Itoa(MaxBatch) + ".fail."
	for i, m := range msgs {
		operation := batchAppend
		switch {
		case i == len(msgs)-1:
			operation = batchCommit
		case i == 0:
			operation = batchStart
		}
		reply := prefix + strconv.Itoa(i+1) + "." + strconv.Itoa(operation) + ".$FI"
		if err := b.nc.PublishMsg(&nats.Msg{Subject: m.Subject, Reply: reply, Header: m.Header, Data: m.Data}); err != nil {
			return 0, err
		}
	}
	return b.batchEnd(session, answers, len(msgs))
}

// batchAnswer is an answer to a batch: of a type while it goes on (how far it is, a gap, a refusal), without one at its
// end, where Count is how many of the first messages are stored.
type batchAnswer struct {
	Type  string              `json:"type"`
	Count int                 `json:"count"`
	Error *jetstream.APIError `json:"error"`
}

func (b *Bus) batchEnd(ctx context.Context, answers *nats.Subscription, total int) (stored int, err error) {
	refusal := errors.New("the broker has ended the batch early")
	for {
		m, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return 0, err
		}
		var a batchAnswer
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return 0, fmt.Errorf("read the answer to a batch: %w", err)
		}
		if a.Error != nil {
			refusal = a.Error
		}
		switch {
		case a.Type != "":
		case a.Error != nil || a.Count < total:
			return max(a.Count, 0), refusal
		default:
			return total, nil
		}
	}
}
