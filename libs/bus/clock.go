package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"kanade/libs/events"
)

// clockInterval is how long one sample of the broker's clock serves.
const clockInterval = time.Minute

// clockTolerance is how far this host's wall clock and its monotonic clock may part before a sample is dropped: they
// part when the host was suspended or its clock was set.
const clockTolerance = time.Second

type clock struct {
	// asking is held by whoever asks the broker, which may take as long as the broker is away: the others wait with their
	// contexts.
	asking *semaphore.Weighted

	mu     sync.Mutex
	broker time.Time // the broker's clock …
	local  time.Time // … when it was this late here; zero: never sampled
}

// Now is the broker's clock, by which presence, ticks and expiry are judged: the time in its last answer and what has
// passed here since, asked again every minute. It is behind by the way of one answer and never ahead. ErrUnavailable
// if the broker has to be asked and does not answer. The time is UTC.
func (b *Bus) Now(ctx context.Context) (time.Time, error) {
	c := &b.clock
	if now, ok := c.now(); ok {
		return now, nil
	}
	if err := c.asking.Acquire(ctx, 1); err != nil {
		return time.Time{}, fmt.Errorf("ask the broker's clock: %w: %w", ErrUnavailable, err)
	}
	defer c.asking.Release(1)
	if now, ok := c.now(); ok { // somebody has asked meanwhile
		return now, nil
	}
	var answer struct {
		TS time.Time `json:"ts"`
	}
	if err := b.api(ctx, "STREAM.INFO."+events.StreamLog, struct{}{}, &answer); err != nil {
		return time.Time{}, fmt.Errorf("ask the broker's clock: %w", err)
	}
	return c.sample(answer.TS.UTC()), nil
}

func (c *clock) sample(broker time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broker, c.local = broker, time.Now()
	return broker
}

func (c *clock) now() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.local.IsZero() {
		return time.Time{}, false
	}
	here := time.Now()
	elapsed := here.Sub(c.local)
	drift := here.Round(0).Sub(c.local.Round(0)) - elapsed
	if elapsed >= clockInterval || drift.Abs() > clockTolerance {
		return time.Time{}, false
	}
	return c.broker.Add(elapsed), true
}

// api asks the JetStream API, whose answers come from the leader, and decodes the answer into result. Errors of the API
// are *jetstream.APIError.
func (b *Bus) api(ctx context.Context, subject string, request, result any) error {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request %s: %w", subject, err)
	}
	reply, err := b.nc.RequestWithContext(ctx, "$JS.API."+subject, body)
	if err != nil {
		return unavailable(fmt.Errorf("request %s: %w", subject, err))
	}
	var failure struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &failure); err != nil {
		return fmt.Errorf("decode answer of %s: %w", subject, err)
	}
	if failure.Error != nil {
		return unavailable(fmt.Errorf("request %s: %w", subject, failure.Error))
	}
	if err := json.Unmarshal(reply.Data, result); err != nil {
		return fmt.Errorf("decode answer of %s: %w", subject, err)
	}
	return nil
}
