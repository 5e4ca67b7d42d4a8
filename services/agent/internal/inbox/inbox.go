// Package inbox hears the commands of one endpoint.
//
// There are two ways to hear one, and both lead to the same ledger. Live: core subscriptions on commands.all,
// commands.pc.<pc> and commands.group.<g>. Catch-up: direct gets on the same subjects of EXEC from the last sequence that
// is in the ledger, at the start, on every reconnection, when a group is joined, and every 30 to 60 seconds. What was
// heard live is read again by the catch-up and dropped by its request id; so a message that the live way lost is at most a
// minute late. No JetStream consumer is made, ever: an endpoint costs the broker its connection and a few subscriptions.
//
// Where it begins. An agent that has never caught up takes what is addressed to it alone from EXEC's beginning, and
// everything else from EXEC's present end: what the fleet was told before it existed is not for it. So it exists only from
// then on: see Hears. A group that is joined later counts from the moment at which the membership was stored, even if the
// endpoint was away then.
//
// Everything happens on the goroutine of Run, so that nothing here is locked.
package inbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent/internal/bucket"
	"kanade/services/agent/internal/domain"
	"kanade/services/agent/internal/ledger"
)

// Pace of the inbox.
const (
	catchUpEvery  = 30 * time.Second // and up to as much again
	groupsEvery   = 5 * time.Minute
	hintDelay     = 250 * time.Millisecond
	againDelay    = time.Second
	minBackoff    = time.Second
	maxBackoff    = time.Minute
	liveBuffer    = 4096
	lookupTimeout = 5 * time.Second
)

// Config of an inbox.
type Config struct {
	Bus    *bus.Bus
	Ledger *ledger.Ledger
	PCID   string
	Logger *slog.Logger
	// Receive puts a command into the ledger. An error means that it could not be written: the command is heard again.
	// What can't be read as a command is no error.
	Receive func(ctx context.Context, h domain.Heard) error
	// CatchUpFailed, if not nil, is called for every catch-up that failed.
	CatchUpFailed func()
}

// Inbox hears commands. Make it with New.
type Inbox struct {
	Config
	live      chan *nats.Msg
	hints     chan *nats.Msg
	subs      map[string]*nats.Subscription
	positions map[string]ledger.Position
	// begun is whether positions exist, checked whether they fit the stream of this connection.
	begun, checked bool
	hears          chan struct{} // closed when positions exist
	groupsDue      time.Time
	// again asks for another catch-up soon: a command that the broker was about to store when a subscription was made is
	// heard neither live nor by the catch-up that follows at once.
	again bool
	// hinted says that somebody wrote, or tried to write, this endpoint's groups.
	hinted bool
}

// New makes an inbox; Run works.
func New(c Config) *Inbox {
	return &Inbox{
		Config: c, live: make(chan *nats.Msg, liveBuffer), hints: make(chan *nats.Msg, 16), subs: map[string]*nats.Subscription{},
		hears: make(chan struct{}),
	}
}

// Hears is closed when every command that is sent from then on will be heard. An endpoint must not be announced before: it
// would be expected to run what it never hears.
func (in *Inbox) Hears() <-chan struct{} { return in.hears }

// Run hears until ctx is done. Errors are the ledger's; whatever the broker refuses is tried again.
func (in *Inbox) Run(ctx context.Context) (err error) {
	if in.positions, err = in.Ledger.Positions(); err != nil {
		return err
	}
	defer in.unsubscribe()
	status := in.Bus.Conn().StatusChanged(nats.CONNECTED)
	defer in.Bus.Conn().RemoveStatusListener(status)
	hints, err := in.Bus.Conn().ChanSubscribe(bucket.Subject(events.BucketAgentGroups, in.PCID), in.hints)
	if err != nil {
		return err
	}
	defer hints.Unsubscribe()

	if in.begun = len(in.positions) > 0; in.begun {
		close(in.hears)
		in.subscribe()
	}
	backoff := minBackoff
	timer := time.NewTimer(time.Nanosecond)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-in.live:
			sentAt, _ := time.Parse(time.RFC3339Nano, m.Header.Get(events.HeaderSentAt)) // zero where nobody says
			if err := in.Receive(ctx, domain.Heard{Data: m.Data, TraceParent: m.Header.Get(events.HeaderTraceParent), SentAt: sentAt}); err != nil {
				in.Logger.Error("a command could not be written down; it will be heard again", "subject", m.Subject, "error", err)
			}
			continue
		case <-in.hints:
			// The message itself proves nothing: subscribers hear a write that the bucket refuses. It is looked up once the
			// write has had time to arrive, and again with the next catch-up.
			in.groupsDue, in.hinted = time.Time{}, true
			timer.Reset(hintDelay)
			continue
		case <-status:
			in.checked, in.groupsDue = false, time.Time{}
		case <-timer.C:
		}
		if !in.Bus.Connected() {
			timer.Reset(maxBackoff) // the reconnection comes first
			continue
		}
		if err := in.sync(ctx); err == nil {
			backoff = minBackoff
			if timer.Reset(catchUpEvery + rand.N(catchUpEvery)); in.again {
				in.again = false
				timer.Reset(againDelay)
			}
			continue
		} else if ctx.Err() == nil {
			in.Logger.Warn("could not catch up", "retry_in", backoff, "error", err)
			if in.CatchUpFailed != nil {
				in.CatchUpFailed()
			}
		}
		timer.Reset(backoff + rand.N(backoff/4))
		backoff = min(2*backoff, maxBackoff)
	}
}

// sync brings positions, groups and the ledger up to date, in this order.
func (in *Inbox) sync(ctx context.Context) error {
	if !in.begun || !in.checked {
		if err := in.begin(ctx); err != nil {
			return err
		}
	}
	groupsErr := in.readGroups(ctx)
	in.subscribe()
	return errors.Join(groupsErr, in.catchUp(ctx))
}

// begin gives an agent that has none its first positions, and takes them back to the start if EXEC lies behind them: it
// was made anew, or restored from a backup, and everything in it that is in the ledger is known there.
func (in *Inbox) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	last, err := in.Bus.LastSeq(ctx, events.StreamExec)
	if err != nil {
		return err
	}
	changes := map[string]*ledger.Position{}
	if !in.begun {
		groups, _, err := in.membership(ctx)
		if err != nil {
			return err
		}
		changes[wire.SubjectCommandAll] = &ledger.Position{Seq: last}
		changes[wire.SubjectCommandPC(in.PCID)] = &ledger.Position{}
		for _, g := range groups {
			changes[wire.SubjectCommandGroup(g)] = &ledger.Position{Seq: last}
		}
	}
	for subject, p := range in.positions {
		if p.Seq > last {
			changes[subject] = &ledger.Position{}
		}
	}
	if err := in.move(changes); err != nil {
		return err
	}
	if !in.begun {
		close(in.hears)
	}
	in.begun, in.checked = true, true
	return nil
}

// move writes positions, on disk first.
func (in *Inbox) move(changes map[string]*ledger.Position) error {
	if len(changes) == 0 {
		return nil
	}
	if err := in.Ledger.SetPositions(changes); err != nil {
		return err
	}
	for subject, p := range changes {
		if p == nil {
			delete(in.positions, subject)
		} else {
			in.positions[subject] = *p
		}
	}
	return nil
}

// subscribe makes the live subscriptions equal to the positions.
func (in *Inbox) subscribe() {
	for subject := range in.positions {
		if in.subs[subject] != nil {
			continue
		}
		sub, err := in.Bus.Conn().ChanSubscribe(subject, in.live)
		if err != nil {
			in.Logger.Warn("could not subscribe; the catch-up will bring what is missed", "subject", subject, "error", err)
			continue
		}
		in.subs[subject], in.again = sub, true
	}
	for subject, sub := range in.subs {
		if _, wanted := in.positions[subject]; !wanted {
			_ = sub.Unsubscribe()
			delete(in.subs, subject)
		}
	}
}

func (in *Inbox) unsubscribe() {
	for _, sub := range in.subs {
		_ = sub.Unsubscribe()
	}
}
