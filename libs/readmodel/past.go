package readmodel

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/semaphore"

	"kanade/libs/events"
)

// Models of past moments are files in the directory "past" beside the slots, each of this version's schema and of one LOG
// sequence. They are made under other names, finished, and then given theirs; from then on nobody writes them, so readers
// need nothing but to read. Whoever has one open goes on when it is removed.
const (
	pastDir      = "past"
	pastBuilding = "building-"
)

// PastKept is how much of the log's time a model of the past serves: a short part of the slack by which the log keeps more
// than is shown. What is looked at later is built anew, without what has been forgotten since.
const PastKept = 24 * time.Hour

// claimEvery is how often the lock of the past is tried.
const claimEvery = 50 * time.Millisecond

// Past is the directory of models of past moments, held by a file lock: one process builds at a time.
type Past struct {
	dir    string
	lock   *flock.Flock
	retain events.Retain
}

// ClaimPast waits until nobody else builds models of the past under dir, which is made if need be; they forget what is older
// than retain says. What one that was broken off has left is removed. The lock ends with Close, at the latest with the process.
func ClaimPast(ctx context.Context, dir string, retain events.Retain) (*Past, error) {
	abs, err := filepath.Abs(filepath.Join(dir, pastDir))
	if err == nil {
		err = os.MkdirAll(abs, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("claim the past: %w", err)
	}
	p := &Past{dir: abs, lock: flock.New(filepath.Join(abs, "lock")), retain: retain}
	if _, err := p.lock.TryLockContext(ctx, claimEvery); err != nil {
		return nil, fmt.Errorf("lock %s: %w", abs, err)
	}
	left, err := filepath.Glob(filepath.Join(globLiteral(abs), pastBuilding+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("claim the past: %w", err), p.Close())
	}
	return p, nil
}

// Close frees the directory.
func (p *Past) Close() error {
	if err := p.lock.Unlock(); err != nil {
		return fmt.Errorf("free %s: %w", p.dir, err)
	}
	return nil
}

// Room is a path without a file, for a model to be built or a snapshot to begin one with. What is left there goes with the
// next claim.
func (p *Past) Room() string {
	var end [4]byte
	_, _ = rand.Read(end[:])
	return filepath.Join(p.dir, pastBuilding+hex.EncodeToString(end[:])+".db")
}

// Build opens a model that nobody is given yet: a snapshot at a Room, or a new one.
func (p *Past) Build(ctx context.Context, room string) (*Writer, error) {
	w := &Writer{path: room}
	if err := w.open(ctx, p.retain); err != nil {
		return nil, errors.Join(fmt.Errorf("build read model %s: %w", room, err), w.Close(), removeModel(room))
	}
	return w, nil
}

// ForgetAt makes a model of the past forget by a time of the log that is later than its own: the present one. It leaves out
// execs that are named as well, whatever is known of them: those that have been reduced since, of which the log has kept
// nothing that old.
func (w *Writer) ForgetAt(ctx context.Context, present time.Time, reduced []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for more := true; more && w.db.retain != (events.Retain{}); {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := w.db.transaction(func() (err error) { more, err = w.db.forget(present, forgetStep); return err })
		if err != nil {
			return fmt.Errorf("forget by %s: %w", present, err)
		}
	}
	err := w.db.transaction(func() error {
		for _, r := range []*relation{&waves, &targets, &targetPlaces, &targetTotals, &executions} {
			query := "DELETE FROM " + r.name + " WHERE exec_id IN (SELECT value FROM json_each(?))"
			if _, err := w.db.conn.ExecContext(ctx, query, textList(reduced)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("leave out %d execs that were reduced: %w", len(reduced), err)
	}
	return nil
}

// Offer closes a model that was built, of the LOG up to a sequence, and gives it to readers. The log's time at that moment,
// present, is what Thin and OpenPast go by: it stands in the file's time.
func (p *Past) Offer(ctx context.Context, w *Writer, sequence uint64, present time.Time) error {
	err := w.finish(ctx)
	if err = errors.Join(err, w.Close()); err == nil {
		err = os.Chtimes(w.path, present, present)
	}
	if err == nil {
		err = os.Rename(w.path, pastFile(p.dir, sequence))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("offer read model of %d: %w", sequence, err), removeModel(w.path))
	}
	return nil
}

// finish takes the journal away, without which a reader can open the file in a directory that it can't write.
func (w *Writer) finish(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.db.conn.ExecContext(ctx, "PRAGMA user_version = 1"); err != nil {
		return err
	}
	var mode string
	if err := w.db.conn.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode); err != nil {
		return err
	}
	if mode != "delete" {
		return fmt.Errorf("its journal is %s", mode)
	}
	return nil
}

// Remove removes the model of a sequence, if there is one.
func (p *Past) Remove(sequence uint64) error { return removeModel(pastFile(p.dir, sequence)) }

// Thin removes the models that were built before a time of the log, and of the rest, whatever their schema, all but the
// newest.
func (p *Past) Thin(since time.Time, keep int) error {
	paths, err := filepath.Glob(filepath.Join(globLiteral(p.dir), "past-*.db"))
	if err != nil {
		return fmt.Errorf("look into %s: %w", p.dir, err)
	}
	built := map[string]time.Time{}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			built[path] = info.ModTime()
		}
	}
	slices.SortFunc(paths, func(a, b string) int { // the newest first
		return cmp.Or(built[b].Compare(built[a]), strings.Compare(a, b))
	})
	var errs []error
	for i, path := range paths {
		if i >= keep || built[path].Before(since) {
			errs = append(errs, removeModel(path))
		}
	}
	return errors.Join(errs...)
}

// pastFile is where the model of a sequence is.
func pastFile(dir string, sequence uint64) string {
	return filepath.Join(dir, fmt.Sprintf("past-%s-%d.db", SchemaID(), sequence))
}

// OpenPast answers queries from the model of the LOG up to a sequence under dir; ErrNotFound if there is none, or only one
// that was built before a time of the log: what has been forgotten since is still in it. Close it.
func OpenPast(ctx context.Context, dir string, sequence uint64, since time.Time) (*Reader, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open read model of %d: %w", sequence, err)
	}
	file, err := openSlotFile(pastFile(filepath.Join(abs, pastDir), sequence))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open read model of %d: %w", sequence, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open read model of %d: %w", sequence, err)
	}
	err = file.look(ctx)
	if err == nil && file.info.ModTime().Before(since) {
		err = fmt.Errorf("it was built before %s: %w", since, ErrNotFound)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open read model of %d: %w", sequence, err), file.db.Close())
	}
	return &Reader{dir: abs, past: file, turn: semaphore.NewWeighted(1)}, nil
}

// Past is OpenPast in the reader's directory.
func (r *Reader) Past(ctx context.Context, sequence uint64, since time.Time) (*Reader, error) {
	return OpenPast(ctx, r.dir, sequence, since)
}
