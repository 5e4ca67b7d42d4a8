package readmodel

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"kanade/libs/events"
)

// Writer applies messages to one file of a slot. It may be used by many goroutines; batches are applied one at a time.
type Writer struct {
	path string
	pool *sql.DB
	slot *Slot // to be freed on Close; nil where somebody else does
	// generation is how the files of a slot follow each other; 0 until it is served.
	generation int

	mu sync.Mutex
	db *database
}

// OpenWriter claims the first free slot under dir, continues its file, or makes one, and serves it at once: for whoever
// feeds a model without rebuilding it. It forgets nothing. Close frees the slot.
func OpenWriter(ctx context.Context, dir string) (*Writer, error) {
	slot, err := ClaimSlot(dir, events.Retain{})
	if err != nil {
		return nil, fmt.Errorf("open read model %s: %w", dir, err)
	}
	w, damaged, err := slot.Continue(ctx)
	if err = errors.Join(err, damaged); err != nil {
		return nil, errors.Join(err, slot.Close())
	}
	w.slot = slot
	if err := w.Serve(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// open opens a file of the slot, or makes it.
func (s *Slot) open(ctx context.Context, path string) (*Writer, error) {
	w := &Writer{path: path}
	if err := w.open(ctx, s.retain); err != nil {
		return nil, errors.Join(fmt.Errorf("open read model %s: %w", path, err), w.Close())
	}
	return w, nil
}

func (w *Writer) open(ctx context.Context, retain events.Retain) (err error) {
	if w.pool, err = sql.Open("sqlite", dsn(w.path, writerParams)); err != nil {
		return err
	}
	w.pool.SetMaxOpenConns(1)
	conn, err := w.pool.Conn(ctx)
	if err != nil {
		return err
	}
	w.db = &database{conn: conn, queries: map[statement]*sql.Stmt{}, changes: map[statement]driver.StmtExecContext{}, retain: retain}
	var made int
	if err := conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_schema").Scan(&made); err != nil {
		return err
	}
	if made > 0 {
		return conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&w.generation)
	}
	return w.db.transaction(func() error {
		_, err := conn.ExecContext(ctx, schema())
		return err
	})
}

// Served reports whether readers are given the file.
func (w *Writer) Served() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.generation > 0
}

// Serve gives the file to readers, in place of those of the slot that were served before. What is served is served for
// ever.
func (w *Writer) Serve(ctx context.Context) error {
	if w.Served() {
		return nil
	}
	last, err := w.lastServed(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		_, err = w.db.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", last+1))
	}
	if err != nil {
		return fmt.Errorf("serve read model %s: %w", w.path, err)
	}
	w.generation = last + 1
	return nil
}

// lastServed is the highest generation of the slot's files.
func (w *Writer) lastServed(ctx context.Context) (last int, err error) {
	paths, err := modelFiles(filepath.Dir(w.path))
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		f, err := openSlotFile(path)
		if err != nil {
			return 0, err
		}
		if err := errors.Join(f.look(ctx), f.db.Close()); err != nil && !IsCorrupt(err) {
			return 0, err
		}
		last = max(last, f.generation)
	}
	return last, nil
}

// Remove closes the file and deletes it.
func (w *Writer) Remove() error { return errors.Join(w.Close(), removeModel(w.path)) }

// Close ends the use of the file, and of the Writer. Nothing is lost without it. Closing twice is fine.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	if w.db != nil {
		errs = append(errs, w.db.close())
	}
	if w.pool != nil {
		errs = append(errs, w.pool.Close())
	}
	if w.slot != nil {
		errs = append(errs, w.slot.Close())
	}
	w.db, w.pool, w.slot = nil, nil, nil
	if err := errors.Join(errs...); err != nil {
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
	apply := func() (err error) {
		poison, err = w.db.apply(b)
		return err
	}
	err := w.db.transaction(apply)
	if isDouble(err) {
		w.db.careful = true
		err = w.db.transaction(apply)
		w.db.careful = false
	}
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
	return poison, d.exec(&checkpoints, op, at.fields()...)
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
