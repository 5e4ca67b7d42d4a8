package readmodel

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"
)

// Writer owns one slot and applies messages to its file. It may be used by many goroutines; batches are applied one
// at a time.
type Writer struct {
	path string
	lock *flock.Flock
	pool *sql.DB

	mu sync.Mutex
	db *database
}

// OpenWriter claims the first free slot under dir, which is made if need be, and opens or makes its file. Where a file
// of this schema is left from an earlier process it is continued from its checkpoints.
func OpenWriter(ctx context.Context, dir string) (*Writer, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open read model %s: %w", dir, err)
	}
	slot, lock, err := claimSlot(abs)
	if err != nil {
		return nil, fmt.Errorf("open read model %s: %w", dir, err)
	}
	w := &Writer{lock: lock}
	if err := w.open(ctx, slot); err != nil {
		return nil, errors.Join(fmt.Errorf("open read model %s: %w", slot, err), w.Close())
	}
	return w, nil
}

func (w *Writer) open(ctx context.Context, slot string) (err error) {
	if w.path, err = modelFile(slot); err != nil {
		return err
	}
	if w.pool, err = sql.Open("sqlite", dsn(w.path, writerParams)); err != nil {
		return err
	}
	w.pool.SetMaxOpenConns(1)
	conn, err := w.pool.Conn(ctx)
	if err != nil {
		return err
	}
	w.db = &database{conn: conn, stmts: map[statement]*sql.Stmt{}}
	var made int
	if err := conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_schema").Scan(&made); err != nil {
		return err
	}
	if made > 0 {
		return nil
	}
	return w.db.transaction(func() error {
		_, err := conn.ExecContext(ctx, schema())
		return err
	})
}

// Close ends the use of the file and frees the slot. Nothing is lost without it.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	if w.db != nil {
		for _, s := range w.db.stmts {
			errs = append(errs, s.Close())
		}
		errs = append(errs, w.db.conn.Close())
	}
	if w.pool != nil {
		errs = append(errs, w.pool.Close())
	}
	if err := errors.Join(append(errs, w.lock.Unlock())...); err != nil {
		return fmt.Errorf("close read model %s: %w", w.path, err)
	}
	return nil
}

// Path is the file that this writer feeds.
func (w *Writer) Path() string { return w.path }

// Apply is ApplyBatch of messages that it decodes itself.
func (w *Writer) Apply(ctx context.Context, stream string, messages []Message) ([]Poison, error) {
	return w.ApplyBatch(ctx, Decode(stream, messages))
}

// ApplyBatch applies messages in their order and moves the stream's checkpoint to the last of them, in one transaction.
// What is not after the checkpoint is passed over. It gives back what could not be decoded; the checkpoint is behind
// that as well. An error means that nothing was applied, and that the same batch may be tried again.
func (w *Writer) ApplyBatch(ctx context.Context, b Batch) ([]Poison, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var poison []Poison
	err := w.db.transaction(func() (err error) {
		poison, err = w.db.apply(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("apply %s up to %d: %w", b.stream, b.Last(), err)
	}
	return poison, nil
}

func (d *database) apply(b Batch) ([]Poison, error) {
	at, err := d.checkpoint(b.stream)
	if err != nil {
		return nil, err
	}
	before := at.Sequence
	feeds, err := d.feeds(b)
	if err != nil {
		return nil, err
	}
	var poison []Poison
	for i := range b.messages {
		m := &b.messages[i]
		if m.seq <= at.Sequence {
			continue
		}
		at.Sequence, at.MessageID, at.At = m.seq, m.messageID, m.at
		if m.poison != nil {
			poison = append(poison, *m.poison)
			continue
		}
		for _, p := range feeds {
			if err := p.Apply(&m.fact); err != nil {
				return nil, fmt.Errorf("message %d: %w", m.seq, err)
			}
		}
	}
	if at.Sequence == before {
		return nil, nil
	}
	for _, p := range feeds {
		if err := p.Flush(); err != nil {
			return nil, err
		}
	}
	op := opUpdate
	if before == 0 {
		op = opInsert
	}
	return poison, d.write(&checkpoints, op, at.fields())
}

// feeds opens the tables that the batch's stream feeds.
func (d *database) feeds(b Batch) ([]projection, error) {
	var feeds []projection
	for _, t := range tables() {
		if t.stream != b.stream {
			continue
		}
		p := t.begin(d)
		if f, ok := p.(prefetcher); ok {
			if err := f.Prefetch(b.messages); err != nil {
				return nil, err
			}
		}
		feeds = append(feeds, p)
	}
	return feeds, nil
}

// transaction runs f between BEGIN IMMEDIATE and COMMIT.
func (d *database) transaction(f func() error) error {
	ctx := context.Background()
	if _, err := d.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	err := f()
	if err == nil {
		if _, err = d.conn.ExecContext(ctx, "COMMIT"); err == nil {
			return nil
		}
		err = fmt.Errorf("commit: %w", err)
	}
	// Some errors end the transaction by themselves; then there is nothing to roll back.
	_, _ = d.conn.ExecContext(ctx, "ROLLBACK")
	return err
}
