// Package ledger is the agent's memory on disk: one bbolt file in the data directory, with an fsync at every commit.
//
// It holds the commands this endpoint has heard (so that each runs at most once, whatever happens in between), the
// outbox (what the log has not acknowledged yet) and how far the endpoint has caught up on each of its subjects.
//
// The promise: an entry's move and the message that tells of it are one transaction. So after a crash at any point the
// log is told exactly what the ledger says, and the ledger says "started" before a child exists.
//
// One process at a time: the file is locked while it is open. All methods may be called by many goroutines at once; what
// they write is committed when they return.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// FileName is the ledger's file in the data directory.
const FileName = "ledger.db"

// lockWait is how long Open waits for the lock: long enough for a predecessor that is just leaving.
const lockWait = 2 * time.Second

// ErrInUse says that another agent has the data directory.
var ErrInUse = errors.New("the data directory is in use by another agent")

// Buckets of the file.
var (
	bucketEntries   = []byte("entries")
	bucketOutbox    = []byte("outbox")
	bucketPositions = []byte("positions")
)

// Ledger is an open ledger.
type Ledger struct {
	db        *bbolt.DB
	committed func(Snapshot)
}

// Snapshot copies the ledger as it is on disk to another file.
type Snapshot func(path string) error

// Open opens or makes the ledger of a data directory, which it makes as well. Errors: ErrInUse. Committed, if not nil,
// is called after every commit; tests keep what a crash at that point would leave.
func Open(dir string, committed func(Snapshot)) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	db, err := bbolt.Open(filepath.Join(dir, FileName), 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("open ledger in %s: %w", dir, err)
	}
	l := &Ledger{db: db, committed: committed}
	err = l.update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketEntries, bucketOutbox, bucketPositions} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare ledger in %s: %w", dir, err), db.Close())
	}
	return l, nil
}

// Close closes the file and gives the lock back.
func (l *Ledger) Close() error { return l.db.Close() }

func (l *Ledger) update(fn func(*bbolt.Tx) error) error {
	if err := l.db.Update(fn); err != nil {
		return err
	}
	if l.committed != nil {
		l.committed(func(path string) error {
			return l.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(path, 0o600) })
		})
	}
	return nil
}

func put(b *bbolt.Bucket, key []byte, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}
