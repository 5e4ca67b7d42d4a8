package bus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// Headers of a timer.
const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
	// headerTimerAt keeps the instant: the broker takes its own headers off when it fires.
	headerTimerAt = "Kanade-Timer-At"
)

// Timer is a due time kept by the broker: a message that it delivers at an instant, across restarts of everything.
type Timer struct {
	// Kind names the handler's business ("tick", "wave"), one subject token of letters, digits and "-".
	Kind string
	// Key says what of: a schedule id, an exec id and a wave. Any text.
	Key string
	// Generation tells apart the timers of one key; a timer is never replaced, a stale one comes due and is dropped by its
	// handler.
	Generation string
	// At is the instant. It fires within 3 ms after it; an instant in the past, or nearer than 250 ms, after 250 ms.
	At time.Time
	// Data comes back with the timer; small.
	Data []byte
}

// SetTimer sets a timer. One that is set already stays as it is, with the instant it has; one that has fired is not set
// again within two minutes: a generation is for one firing. Both are no errors, so that setting is safe to repeat.
func (b *Bus) SetTimer(ctx context.Context, t Timer) error {
	if t.Kind == "" || t.Kind != events.Escape(t.Kind) {
		return fmt.Errorf("set timer %q of %q: the kind must be one word of letters, digits and hyphens", t.Kind, t.Key)
	}
	if t.Key == "" || t.Generation == "" {
		return fmt.Errorf("set timer %q of %q: key or generation is missing", t.Kind, t.Key)
	}
	subject := events.TimerSetSubject(t.Kind, t.Key, t.Generation)
	at := t.At.UTC().Format(time.RFC3339Nano)
	m := &nats.Msg{Subject: subject, Data: t.Data, Header: nats.Header{
		// The client's own helper cuts the instant to whole seconds and so fires early.
		headerSchedule:       {"@at " + at},
		headerScheduleTarget: {events.TimerDueSubject(t.Kind, t.Key, t.Generation)},
		headerTimerAt:        {at},
		events.HeaderMsgID:   {subject},
	}}
	if trace := TraceParent(ctx); trace != "" {
		m.Header.Set(events.HeaderTraceParent, trace)
	}
	_, err := b.publish(ctx, m, jetstream.WithExpectLastSequencePerSubject(0))
	if err != nil && !isWrongLastSequence(err) {
		return fmt.Errorf("set timer %s: %w", subject, err)
	}
	return nil
}

// TimerSet says whether a timer waits, or has come due and is not handled yet. The leader answers.
func (b *Bus) TimerSet(ctx context.Context, kind, key, generation string) (bool, error) {
	for _, subject := range []string{
		// In this order: between the two looks a timer can only go from waiting to due.
		events.TimerSetSubject(kind, key, generation), events.TimerDueSubject(kind, key, generation),
	} {
		_, ok, err := b.getRaw(ctx, events.StreamTimers, getRequest{LastFor: subject})
		if err != nil {
			return false, fmt.Errorf("look up timer %s: %w", subject, err)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// timerOf reads a due message back.
func timerOf(m RawMsg) (Timer, error) {
	kind, key, generation, err := events.ParseTimerSubject(m.Subject)
	if err != nil {
		return Timer{}, err
	}
	if !strings.HasPrefix(m.Subject, "timers.due.") {
		return Timer{}, fmt.Errorf("timer %s is not due: the handler's filter is wrong", m.Subject)
	}
	at, err := time.Parse(time.RFC3339Nano, first(m.Header, headerTimerAt))
	if err != nil {
		return Timer{}, fmt.Errorf("timer %s: instant: %w", m.Subject, err)
	}
	return Timer{Kind: kind, Key: key, Generation: generation, At: at, Data: m.Data}, nil
}
