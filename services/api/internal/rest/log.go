package rest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/api/internal/journal"
)

// checkLogEvery is how long it is believed that the log is the same one while the connection lasts: somebody may remove the
// stream of a broker that runs.
const checkLogEvery = 10 * time.Second

// sameLog is when the read model was last known to be of the log that is there. A broker that was emptied, or restored from a
// backup, has another one: under its numbers the read model knows other facts, or facts that nobody ever stated.
type sameLog struct {
	asking singleflight.Group
	mu     sync.Mutex
	at     time.Time
	// reconnects is the number of the connection: a broker that was away may come back with another log.
	reconnects uint64
}

// known reports whether it is known for a connection, and for how long.
func (l *sameLog) known(reconnects uint64) (ok bool, since time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.at.IsZero() && l.reconnects == reconnects, time.Since(l.at)
}

func (l *sameLog) note(reconnects uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.reconnects = time.Now(), reconnects
}

// checkLog is an *otherLog where the read model is not of the log that is there. What the log has forgotten, and a broker that
// does not answer, tell nothing.
func (s *server) checkLog(ctx context.Context) error {
	if !s.Bus.Connected() {
		return nil
	}
	reconnects := s.Bus.Reconnects()
	known, since := s.log.known(reconnects)
	if known && since < checkLogEvery {
		return nil
	}
	_, err, _ := s.log.asking.Do(strconv.FormatUint(reconnects, 10), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journal.Timeout)
		defer cancel()
		err := s.compareLog(ctx)
		if err == nil || known && errors.Is(err, bus.ErrUnavailable) { // nobody is to wait for it again at once
			s.log.note(reconnects)
		}
		return nil, err
	})
	if errors.Is(err, bus.ErrUnavailable) {
		return nil
	}
	return err
}

func (s *server) compareLog(ctx context.Context) error {
	applied, at, err := s.Reader.Applied(ctx)
	if err != nil || applied == 0 {
		return err
	}
	same, err := s.Bus.StoredAt(ctx, events.StreamLog, applied, at)
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return &otherLog{applied: applied}
	case err != nil:
		return err
	case !same:
		return &otherLog{applied: applied, holds: true}
	}
	last, err := s.Bus.LastSeq(ctx, events.StreamLog)
	if err == nil && last < applied {
		return &otherLog{applied: applied, last: last}
	}
	return err
}

// otherLog says that the read model is of another log than the broker's.
type otherLog struct {
	applied, last uint64
	holds         bool
}

func (e *otherLog) Error() string {
	is := fmt.Sprintf("ends at %d", e.last)
	if e.holds {
		is = "holds another fact there"
	}
	return fmt.Sprintf("the read model is of another log: it shows what was true at sequence %d, and the broker's log %s. The broker was emptied, or restored from a backup; "+
		"start each projector once with --rebuild", e.applied, is)
}
