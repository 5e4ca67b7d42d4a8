// Package outbox brings to the log what the ledger has for it.
//
// The Sender takes messages in the order in which they were put in, uploads what a message names, publishes it, and takes it
// out of the ledger after the log has acknowledged it. It tries for ever: a broker that is away for days costs disk
// space, no fact. A message may be published twice (the agent died between acknowledgement and removal); its id is
// derived, so the log stores it once within its duplicate window and readers fold it once ever.
//
// A message that is refused for another reason than an unreachable broker or a full log (its store is not there) holds
// back what belongs to the same run, and nothing else. The order that is kept is that of each run. A store that is full
// holds back nothing: it may stay so for weeks, and the fact has the output's head and tail.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/agent/internal/domain"
	"kanade/services/agent/internal/ledger"
	"kanade/services/agent/internal/metrics"
)

// Pace of the sender.
const (
	pageSize = 64
	// removeAfter is how long acknowledged messages stay in the file, so that a busy agent removes many at one fsync and
	// a run that is about to start does not wait for it.
	removeAfter = 50 * time.Millisecond
	minBackoff  = time.Second
	maxBackoff  = time.Minute
	sendTimeout = 10 * time.Second
	// uploadTimeout bounds an object of 8 MiB on a slow line.
	uploadTimeout = 10 * time.Minute
)

// Sender empties the outbox. Make it with New.
type Sender struct {
	bus    *bus.Bus
	ledger *ledger.Ledger
	logger *slog.Logger
	counts *metrics.Metrics
	wake   chan struct{}
	// sent are acknowledged messages that are still in the file: all that there are up to the largest key among them.
	sent []ledger.Item
}

// New makes a sender; Run works.
func New(b *bus.Bus, l *ledger.Ledger, logger *slog.Logger, m *metrics.Metrics) *Sender {
	return &Sender{bus: b, ledger: l, logger: logger, counts: m, wake: make(chan struct{}, 1)}
}

// Wake says that there may be something to send. It never blocks; any goroutine may call it.
func (s *Sender) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx is done. What it could not send stays in the ledger.
func (s *Sender) Run(ctx context.Context) error {
	status := s.bus.Conn().StatusChanged(nats.CONNECTED)
	defer s.bus.Conn().RemoveStatusListener(status)
	backoff := minBackoff
	timer := time.NewTimer(time.Nanosecond)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.Settle()
		case <-s.wake:
		case <-status:
		case <-timer.C:
		}
		if !s.bus.Connected() {
			timer.Reset(maxBackoff) // the reconnection comes first
			continue
		}
		ok, err := s.Flush(ctx)
		switch {
		case err != nil:
			return err
		case !ok:
			timer.Reset(backoff)
			backoff = min(2*backoff, maxBackoff)
		case len(s.sent) > 0:
			backoff = minBackoff
			timer.Reset(removeAfter)
		default:
			backoff = minBackoff
			timer.Stop()
		}
	}
}

// Flush sends what is there, once, and reports whether all of it left. What has to be uploaded goes last, so that a long
// upload delays no other run. Errors are the ledger's. It is for one goroutine, and none while Run runs.
func (s *Sender) Flush(ctx context.Context) (all bool, err error) {
	p := pass{Sender: s, held: map[string]bool{}}
	last := uint64(0)
	for _, it := range s.sent {
		last = max(last, it.Key)
	}
	var uploads []uint64
	for more := true; more; {
		items, err := s.ledger.Outbox(last, pageSize)
		if err != nil {
			return false, err
		}
		for _, it := range items {
			if last = it.Key; len(it.Message.Uploads) > 0 {
				uploads = append(uploads, it.Key)
				p.held[it.Message.ResultID] = true
			} else if !p.send(ctx, it) {
				return false, s.Settle()
			}
		}
		more = len(items) == pageSize
	}
	for _, key := range uploads {
		items, err := s.ledger.Outbox(key-1, 1)
		if err != nil {
			return false, err
		}
		delete(p.held, items[0].Message.ResultID)
		if !p.send(ctx, items[0]) {
			return false, s.Settle()
		}
	}
	if len(p.held) > 0 || !p.fresh || len(s.sent) >= pageSize {
		err = s.Settle()
	}
	return len(p.held) == 0, err
}

// pass is one Flush: the runs that are held back, and whether anything left.
type pass struct {
	*Sender
	held  map[string]bool
	fresh bool
}

// send tries one message, and reports whether it makes sense to try the next.
func (p *pass) send(ctx context.Context, it ledger.Item) bool {
	if p.held[it.Message.ResultID] {
		return true
	}
	err := p.Sender.send(ctx, it.Message)
	if err == nil {
		p.sent, p.fresh = append(p.sent, it), true
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	p.held[it.Message.ResultID] = true
	p.logger.Warn("the log does not take a fact; it stays in the outbox", "result_id", it.Message.ResultID, "error", err)
	return !errors.Is(err, bus.ErrUnavailable) && !errors.Is(err, bus.ErrLogFull)
}

// Settle takes what was acknowledged out of the ledger, then its files. Flush leaves that to a quieter moment.
func (s *Sender) Settle() error {
	if len(s.sent) == 0 {
		return nil
	}
	keys := make([]uint64, len(s.sent))
	for i, it := range s.sent {
		keys[i] = it.Key
	}
	if err := s.ledger.Sent(keys); err != nil {
		return err
	}
	for _, it := range s.sent {
		for _, u := range it.Message.Uploads {
			_ = os.Remove(u.File)
		}
	}
	s.sent = nil
	return nil
}

func (s *Sender) send(ctx context.Context, m domain.Message) error {
	for _, u := range m.Uploads {
		err := s.upload(ctx, u)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// The file is only removed after its message: somebody else removed it. The fact must not wait for it.
			m, err = s.cut(m, u, reasonSpoolLost, err)
		case errors.Is(err, bus.ErrLogFull): // of the store: the log has not been asked yet
			m, err = s.cut(m, u, reasonStoreFull, err)
		}
		if err != nil {
			return fmt.Errorf("upload %s: %w", u.Object, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if m.Event != nil {
		e := *m.Event
		// The append is a step of the trace, and what comes of the fact is a step after it.
		ctx, e.TraceParent = bus.WithTraceParent(ctx, e.TraceParent), ""
		_, err := s.bus.Append(ctx, e, bus.Any)
		return err
	}
	msg, err := Encode(m)
	if err != nil {
		return err
	}
	return s.bus.PublishAll(ctx, []*nats.Msg{msg}, 1)
}

// Reasons for which an output goes out cut, as the metric names them.
const (
	reasonStoreFull = "store_full"
	reasonSpoolLost = "spool_lost"
)

// cut is the message without an object that can't be had; head and tail of the output stay.
func (s *Sender) cut(m domain.Message, u domain.Upload, reason string, cause error) (domain.Message, error) {
	s.logger.Error("an output is kept only in part", "object", u.Object, "reason", reason, "error", cause)
	s.counts.OutputsCut.WithLabelValues(reason).Inc()
	return m.WithoutObject(u.Object)
}

// Encode is a message as it is published.
func Encode(m domain.Message) (*nats.Msg, error) {
	if m.Event == nil {
		return &nats.Msg{
			Subject: m.Reply.Subject, Data: m.Reply.Data, Header: nats.Header{events.HeaderMsgID: {m.Reply.ID}},
		}, nil
	}
	header, body, err := m.Event.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode fact of run %s: %w", m.ResultID, err)
	}
	return &nats.Msg{Subject: m.Event.NATSSubject(), Header: nats.Header(header), Data: body}, nil
}

func (s *Sender) upload(ctx context.Context, u domain.Upload) error {
	f, err := os.Open(u.File)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	return s.bus.PutObject(ctx, events.StoreResultOutput, u.Object, f)
}
