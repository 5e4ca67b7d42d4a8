package ledger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"kanade/services/agent/internal/domain"
)

// Item is a message in the outbox. Keys rise in the order in which messages were put in.
type Item struct {
	Key     uint64
	Message domain.Message
}

func enqueue(tx *bbolt.Tx, m *domain.Message) error {
	if m == nil {
		return nil
	}
	b := tx.Bucket(bucketOutbox)
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	return put(b, binary.BigEndian.AppendUint64(nil, n), m)
}

// Outbox lists up to limit messages behind a key, in order.
func (l *Ledger) Outbox(after uint64, limit int) ([]Item, error) {
	var items []Item
	err := l.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketOutbox).Cursor()
		for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, after+1)); k != nil && len(items) < limit; k, v = c.Next() {
			it := Item{Key: binary.BigEndian.Uint64(k)}
			if err := json.Unmarshal(v, &it.Message); err != nil {
				return fmt.Errorf("item %d: %w", it.Key, err)
			}
			items = append(items, it)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return items, nil
}

// Sent takes messages out of the outbox.
func (l *Ledger) Sent(keys []uint64) error {
	err := l.update(func(tx *bbolt.Tx) error {
		for _, key := range keys {
			if err := tx.Bucket(bucketOutbox).Delete(binary.BigEndian.AppendUint64(nil, key)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("take %d messages out of the outbox: %w", len(keys), err)
	}
	return nil
}

// Waiting is how many messages are in the outbox.
func (l *Ledger) Waiting() int {
	n := 0
	_ = l.db.View(func(tx *bbolt.Tx) error {
		n = tx.Bucket(bucketOutbox).Stats().KeyN
		return nil
	})
	return n
}

func byReceipt(entries []domain.Entry) []domain.Entry {
	slices.SortStableFunc(entries, func(a, b domain.Entry) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	return entries
}
