package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"kanade/services/agent/internal/domain"
)

// ErrState says that an entry is not in the state that a move begins from: somebody else has moved it.
var ErrState = errors.New("entry is in another state")

// Receive makes an entry, with the message that tells of it (nil for none). It reports false, and writes nothing, if the
// request is known.
func (l *Ledger) Receive(e domain.Entry, m *domain.Message) (fresh bool, err error) {
	if known, err := l.Known(e.Run.RequestID); known || err != nil {
		return false, err
	}
	err = l.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEntries)
		if fresh = b.Get([]byte(e.Run.RequestID)) == nil; !fresh {
			return nil
		}
		return errors.Join(put(b, []byte(e.Run.RequestID), e), enqueue(tx, m))
	})
	if err != nil {
		return false, fmt.Errorf("receive request %s: %w", e.Run.RequestID, err)
	}
	return fresh, nil
}

// Start moves an entry from received to started. The caller starts the child after it has returned, never before.
func (l *Ledger) Start(requestID string, at time.Time, m *domain.Message) error {
	return l.move(requestID, domain.EntryReceived, m, func(e *domain.Entry) {
		e.State, e.StartedAt = domain.EntryStarted, at.UTC()
	})
}

// Finish ends an entry that is in state from, and drops its command.
func (l *Ledger) Finish(requestID string, from domain.EntryState, m *domain.Message) error {
	return l.move(requestID, from, m, func(e *domain.Entry) { e.State, e.Command = domain.EntryDone, nil })
}

func (l *Ledger) move(requestID string, from domain.EntryState, m *domain.Message, change func(*domain.Entry)) error {
	err := l.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEntries)
		e, err := decode(b.Get([]byte(requestID)))
		if err != nil {
			return err
		}
		if e.State != from {
			return fmt.Errorf("%w: %s, not %s", ErrState, e.State, from)
		}
		change(&e)
		return errors.Join(put(b, []byte(requestID), e), enqueue(tx, m))
	})
	if err != nil {
		return fmt.Errorf("move request %s on from %s: %w", requestID, from, err)
	}
	return nil
}

// Known reports whether a request has an entry.
func (l *Ledger) Known(requestID string) (known bool, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(bucketEntries).Get([]byte(requestID)) != nil
		return nil
	})
	return known, err
}

// Entry reads one entry.
func (l *Ledger) Entry(requestID string) (e domain.Entry, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		e, err = decode(tx.Bucket(bucketEntries).Get([]byte(requestID)))
		return err
	})
	if err != nil {
		return e, fmt.Errorf("read request %s: %w", requestID, err)
	}
	return e, nil
}

// Open lists the entries that are not done, without their commands, in the order in which they were received.
func (l *Ledger) Open() ([]domain.Entry, error) {
	var open []domain.Entry
	err := l.each(func(_ []byte, e domain.Entry) {
		if e.State != domain.EntryDone {
			e.Command = nil
			open = append(open, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list open requests: %w", err)
	}
	return byReceipt(open), nil
}

// Prune forgets the entries that are done and need not be kept any longer, and says how many it were.
func (l *Ledger) Prune(now time.Time) (int, error) {
	var old [][]byte
	err := l.each(func(key []byte, e domain.Entry) {
		if e.State == domain.EntryDone && e.KeepUntil.Before(now) {
			old = append(old, append([]byte(nil), key...))
		}
	})
	if err == nil && len(old) > 0 {
		err = l.update(func(tx *bbolt.Tx) error {
			for _, key := range old {
				if err := tx.Bucket(bucketEntries).Delete(key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return 0, fmt.Errorf("prune ledger: %w", err)
	}
	return len(old), nil
}

func (l *Ledger) each(fn func(key []byte, e domain.Entry)) error {
	return l.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketEntries).ForEach(func(key, value []byte) error {
			e, err := decode(value)
			if err == nil {
				fn(key, e)
			}
			return err
		})
	})
}

func decode(value []byte) (e domain.Entry, err error) {
	if value == nil {
		return e, errors.New("no such entry")
	}
	return e, json.Unmarshal(value, &e)
}
