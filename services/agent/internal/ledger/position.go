package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Position is how far the endpoint has caught up on one subject of EXEC.
type Position struct {
	// Seq is the last sequence that is in the ledger.
	Seq uint64 `json:"seq,omitempty"`
	// Since replaces Seq while nothing has been read: commands stored at this time or later are for this endpoint.
	Since time.Time `json:"since,omitzero"`
}

// Positions lists every subject the endpoint has caught up on; none for an agent that has never reached its broker.
func (l *Ledger) Positions() (map[string]Position, error) {
	all := map[string]Position{}
	err := l.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketPositions).ForEach(func(key, value []byte) error {
			var p Position
			if err := json.Unmarshal(value, &p); err != nil {
				return fmt.Errorf("subject %s: %w", key, err)
			}
			all[string(key)] = p
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read positions: %w", err)
	}
	return all, nil
}

// SetPositions writes positions in one transaction; nil forgets the subject.
func (l *Ledger) SetPositions(changes map[string]*Position) error {
	err := l.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketPositions)
		var errs []error
		for subject, p := range changes {
			if p == nil {
				errs = append(errs, b.Delete([]byte(subject)))
			} else {
				errs = append(errs, put(b, []byte(subject), p))
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("write positions: %w", err)
	}
	return nil
}
